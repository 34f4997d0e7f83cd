//! Where the decision API of a node agent is: a socket beside that of its Workload API.

use std::path::{Path, PathBuf};

/// The variable that names it to what a run starts: a path.
pub const VARIABLE: &str = "AVOUCH_SOCKET";
/// What its name has more than that of the Workload API, before the ending.
const MORE: &str = "-access";

/// `/run/spire/api.sock` gives `/run/spire/api-access.sock`.
#[must_use]
pub fn beside(workload: &Path) -> PathBuf {
    let mut name = workload.file_stem().unwrap_or_default().to_owned();
    name.push(MORE);
    if let Some(ending) = workload.extension() {
        name.push(".");
        name.push(ending);
    }
    workload.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_beside_the_workload_api() {
        let of = |path: &str| beside(Path::new(path)).display().to_string();
        assert_eq!(of("/run/spire/api.sock"), "/run/spire/api-access.sock");
        assert_eq!(of("/run/spire/agent"), "/run/spire/agent-access");
    }
}
