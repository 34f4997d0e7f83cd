//! The demonstration: its scenes check themselves, and this checks that all of them were played and nothing is left.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use avouch_tests::daemon::binary;
use tokio::process::Command;

use crate::governed::can_be_others;

/// It waits for seconds by itself, and shares two cores with other tests here.
const LIMIT: Duration = Duration::from_secs(150);

/// Processes whose command line names this folder.
fn of_folder(folder: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(folder)).collect()
}

#[tokio::test]
async fn all_twelve_scenes_hold_and_nothing_is_left() {
    let place = tempfile::tempdir().unwrap();
    // The other people of the demonstration get to its folder.
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let base = place.path().to_str().unwrap().to_owned();
    let mut command = Command::new(binary("avouch"));
    command.args(["demo", "up", "--once"]).env("TMPDIR", &base).stdin(Stdio::null()).kill_on_drop(true);
    let said =
        tokio::time::timeout(LIMIT, command.output()).await.expect("an end of the demonstration").unwrap();
    let told = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{told}\n{}", String::from_utf8_lossy(&said.stderr));
    for scene in 1..=12 {
        let heading = format!("\n{scene:>3}   ");
        assert!(told.contains(&heading), "scene {scene}: {told}");
    }
    if can_be_others() {
        assert!(told.contains("all 12 scenes hold in "), "{told}");
        assert!(!told.contains("not run"), "{told}");
    }
    for wanted in [
        "20 times allow",
        "main is at",
        "the vault answered 1",
        "1000 of 50000 rows",
        "payroll saw 0",
        "blue had 0 errors",
    ] {
        assert!(told.contains(wanted) || !told.contains("all 12"), "{wanted}: {told}");
    }
    assert_eq!(std::fs::read_dir(Path::new(&base)).unwrap().count(), 0, "the folder is gone");
    assert_eq!(of_folder(&base), Vec::<String>::new());
}
