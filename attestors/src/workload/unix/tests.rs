//! Selectors of real processes, and the cache of digests.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Child;

use super::*;
use crate::peer::Peer;
use crate::workload::{AttestError, look_all};

fn own() -> Arc<PinnedProcess> {
    let (a, _b) = UnixStream::pair().unwrap();
    Arc::new(PinnedProcess::pin(Peer::of(&a).unwrap()).unwrap())
}

fn pin_of(child: &Child) -> Arc<PinnedProcess> {
    let uid = nix::unistd::geteuid().as_raw();
    let gid = nix::unistd::getegid().as_raw();
    Arc::new(PinnedProcess::from_peer(i32::try_from(child.id()).unwrap(), uid, gid, None).unwrap())
}

async fn values(config: Config, process: Arc<PinnedProcess>) -> Result<Vec<String>, LookError> {
    Ok(Unix::new(config).look(process).await?.iter().map(|s| s.value().to_owned()).collect())
}

fn sleeper() -> Child {
    crate::child::waiting("cat".as_ref())
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn user_and_groups_are_given_as_numbers_and_names() {
    let process = own();
    let found = values(Config::default(), Arc::clone(&process)).await.unwrap();
    assert!(found.contains(&format!("uid:{}", process.uid())));
    assert!(found.contains(&format!("gid:{}", process.gid())));
    if let Some(name) = user_name(process.uid()) {
        assert!(found.contains(&format!("user:{name}")));
    }
    for gid in process.key().groups.iter() {
        assert!(found.contains(&format!("supplementary_gid:{gid}")));
    }
    assert!(!found.iter().any(|v| v.starts_with("path:") || v.starts_with("sha256:")), "not asked for");
}

#[tokio::test]
async fn path_and_digest_are_of_the_running_binary() {
    let child = sleeper();
    let config = Config { discover_workload_path: true, workload_size_limit: 0 };
    let found = values(config, pin_of(&child)).await.unwrap();
    let path = std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
    assert!(found.contains(&format!("path:{}", path.display())));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(&path).unwrap());
    assert!(found.contains(&format!("sha256:{}", hex::encode(digest))));
    end(child);
}

#[tokio::test]
async fn the_size_limit_refuses_or_switches_the_digest_off() {
    let child = sleeper();
    let limited = Config { discover_workload_path: true, workload_size_limit: 10 };
    let error = values(limited, pin_of(&child)).await.unwrap_err().to_string();
    assert!(error.contains("exceeds size limit 10"), "{error}");
    let off = Config { discover_workload_path: true, workload_size_limit: -1 };
    let found = values(off, pin_of(&child)).await.unwrap();
    assert!(found.iter().any(|v| v.starts_with("path:")) && !found.iter().any(|v| v.starts_with("sha256:")));
    end(child);
}

#[tokio::test]
async fn a_process_that_ended_has_no_selectors() {
    let child = sleeper();
    let process = pin_of(&child);
    end(child);
    let lookers: Vec<Arc<dyn WorkloadLooker>> = vec![Arc::new(Unix::new(Config::default()))];
    assert!(matches!(look_all(&lookers, process).await, Err(AttestError::Gone(_))));
}

#[tokio::test]
async fn one_failing_looker_does_not_take_the_others_selectors() {
    struct Broken;
    impl WorkloadLooker for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }
        fn look(&self, _: Arc<PinnedProcess>) -> Boxed<'static, Result<Vec<Selector>, LookError>> {
            Box::pin(async { Err(failed("broken", "no runtime")) })
        }
    }
    let both: Vec<Arc<dyn WorkloadLooker>> = vec![Arc::new(Broken), Arc::new(Unix::new(Config::default()))];
    let (selectors, errors) = look_all(&both, own()).await.unwrap();
    assert!(!selectors.is_empty());
    assert_eq!(errors.len(), 1);
    let none: Vec<Arc<dyn WorkloadLooker>> = vec![Arc::new(Broken)];
    assert!(matches!(look_all(&none, own()).await, Err(AttestError::AllFailed(_))));
}

#[test]
fn a_digest_is_kept_only_for_a_file_that_has_settled() {
    let digests = Digests::default();
    let mut fresh = tempfile::NamedTempFile::new().unwrap();
    fresh.write_all(b"new").unwrap();
    let read = |path: &std::path::Path| digests.of(std::fs::File::open(path).unwrap(), 0, || Ok(())).unwrap();
    let first = read(fresh.path());
    assert_eq!(digests.kept(), 0, "changed a moment ago");
    fresh.write_all(b"er").unwrap();
    assert_ne!(read(fresh.path()), first);
    read(std::path::Path::new("/bin/sleep"));
    assert_eq!(digests.kept(), 1);
}

#[tokio::test]
async fn a_path_that_a_user_has_mounted_over_is_no_selector_and_the_digest_is_of_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().canonicalize().unwrap().join("trusted");
    std::fs::write(&trusted, "another program").unwrap();
    let cat = std::fs::canonicalize("/bin/cat").unwrap();
    let script = format!("mount --bind '{}' '{1}' && exec '{1}'", cat.display(), trusted.display());
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let Ok(mut child) = command.stderr(std::process::Stdio::null()).spawn() else {
        println!("not run: there is no unshare");
        return;
    };
    // Said back by what it runs at last.
    writeln!(child.stdin.as_mut().unwrap(), "there").unwrap();
    let mut said = [0; 6];
    if std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).is_err() {
        println!("not run: no user namespaces here");
        return end(child);
    }
    let config = Config { discover_workload_path: true, workload_size_limit: 0 };
    let found = values(config, pin_of(&child)).await.unwrap();
    end(child);
    assert!(!found.iter().any(|value| value.starts_with("path:")), "{found:?}");
    let digest =
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(cat).unwrap()));
    assert!(found.contains(&format!("sha256:{digest}")), "{found:?}");
}
