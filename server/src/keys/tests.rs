//! Rules of keeping signing keys, one per test, on real files.

use super::disk::DiskKeys;
use super::*;

#[test]
fn keys_survive_on_disk_in_spires_form_and_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let keys = DiskKeys::open(&path).unwrap();
    let b = keys.generate("x509-CA-B", KeyType::EcP256).unwrap();
    keys.generate("JWT-Signer-A", KeyType::EcP384).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\n\t\"keys\": {\n\t\t\"JWT-Signer-A\": \"MI"), "{text}");
    assert!(text.contains("\",\n\t\t\"x509-CA-B\": \"MI") && text.ends_with("\"\n\t}\n}"), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = DiskKeys::beside(&path);
    assert_eq!(again.get("x509-CA-B").unwrap().public_key().pkix(), b.public_key().pkix());
    assert!(again.get("x509-CA-A").is_none());
}

#[test]
fn a_removed_key_is_gone_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let keys = DiskKeys::open(&path).unwrap();
    keys.generate("x509-CA-A", KeyType::EcP256).unwrap();
    keys.remove("x509-CA-A").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\n\t\"keys\": {}\n}");
    assert!(DiskKeys::beside(&path).get("x509-CA-A").is_none());
}

#[test]
fn a_file_that_holds_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    for bad in ["", "[]", "{\"keys\": {\"a\": \"!\"}}", "{\"keys\": {\"a\": \"AAAA\"}}"] {
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(DiskKeys::open(&path), Err(KeyError::Format { .. })), "{bad}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn a_failed_write_keeps_the_former_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let keys = DiskKeys::open(&path).unwrap();
    let old = keys.generate("x509-CA-A", KeyType::EcP256).unwrap();
    std::fs::create_dir(path.with_extension("json.new")).unwrap();
    assert!(keys.generate("x509-CA-A", KeyType::EcP256).is_err());
    assert_eq!(keys.get("x509-CA-A").unwrap().public_key().pkix(), old.public_key().pkix());
    let again = DiskKeys::beside(&path);
    assert_eq!(again.get("x509-CA-A").unwrap().public_key().pkix(), old.public_key().pkix());
}

#[test]
fn a_file_that_others_could_read_is_private_after_the_next_write_and_keeps_foreign_keys() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    DiskKeys::open(&path).unwrap().generate("WIT-Signer-A", KeyType::EcP256).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    DiskKeys::open(&path).unwrap().generate("x509-CA-A", KeyType::EcP256).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = DiskKeys::open(&path).unwrap();
    assert!(again.get("WIT-Signer-A").is_some() && again.get("x509-CA-A").is_some());
}

#[test]
fn a_second_server_on_the_same_keys_is_refused_by_the_pid_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let first = DiskKeys::open(&path).unwrap();
    let text = DiskKeys::open(&path).unwrap_err().to_string();
    assert!(text.contains(&format!("another server (pid {})", std::process::id())), "{text}");
    assert!(text.contains("keys.json") && text.contains("choose another keys_path"), "{text}");
    drop(first);
    assert!(DiskKeys::open(&path).is_ok());
}
