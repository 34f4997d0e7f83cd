//! What the vault gives back, and all it must not.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::fixtures::{domain, entry_parts, id};
use avouch_domain::{
    Bundle, Entry, Epoch, Head, JwtAuthority, JwtSvid, Revision, Tick, Timestamp, TrustDomain, X509Authority,
    X509Svid,
};
use avouch_engine::cache::{KeptJwt, KeptX509};
use tempfile::TempDir;

use super::*;

const TOKEN: &str = "a token that nobody may see";
const KEY: &[u8] = b"a key that nobody may see";

fn bundle(name: &str, tainted: bool) -> Arc<Bundle> {
    let der = [0x30, 0x03, 0x02, 0x01, 0x07].as_slice().into();
    Arc::new(Bundle {
        x509_authorities: vec![X509Authority { der, tainted }],
        jwt_authorities: vec![JwtAuthority {
            key_id: "k".into(),
            public_key: b"pkix".as_slice().into(),
            expires_at: Some(Timestamp::from_secs(9000)),
            tainted,
        }],
        refresh_hint: 300,
        sequence_number: 7,
        ..Bundle::empty(TrustDomain::new(name).unwrap())
    })
}

fn kept() -> Kept {
    let mut parts = entry_parts("e", "/web", "/spire/agent/x", &["unix:uid:1000", "unix:gid:2"]);
    parts.federates_with = vec![TrustDomain::new("other.test").unwrap()];
    parts.expires_at = Some(Timestamp::from_secs(8000));
    parts.hint = "hint".to_owned();
    parts.dns_names = vec!["web.example.org".to_owned()];
    (parts.revision_number, parts.created_at) = (3, Timestamp::from_secs(50));
    (parts.admin, parts.downstream) = (true, true);
    let entry = Entry::new(parts).unwrap();
    let svid = X509Svid {
        id: id("/web"),
        chain: [b"leaf".as_slice().into(), b"next".as_slice().into()].into(),
        key: Arc::new(Zeroizing::new(KEY.to_vec())),
        not_before: Timestamp::from_secs(100),
        not_after: Timestamp::from_secs(3700),
    };
    let token = JwtSvid {
        id: id("/web"),
        token: Arc::new(Zeroizing::new(TOKEN.to_owned())),
        issued_at: Timestamp::from_secs(100),
        expires_at: Timestamp::from_secs(400),
    };
    let x509 = KeptX509 {
        entry: entry.id.clone(),
        svid: Arc::new(svid),
        authorities: vec!["aa".into()],
        renew_at: Timestamp(1_900_123),
    };
    let jwt = KeptJwt {
        entry: entry.id.clone(),
        audience: vec!["y".to_owned(), "x".to_owned()],
        svid: token,
        key_id: "k".into(),
        renew_at: Timestamp(250_456),
    };
    Kept {
        cache: Snapshot {
            bundles: vec![bundle("example.org", true), bundle("other.test", false)],
            entries: vec![entry],
            x509: vec![x509],
            jwt: vec![jwt],
            distrusted: ["bb".into()].into(),
        },
        position: Some(LogPosition {
            epoch: Epoch { started: 5, random: 6 },
            revision: Revision(7),
            head: Head([8; 32]),
        }),
        latest: Moment { wall: Timestamp(123_456), mono: Tick(789), boot: "boot".to_owned() },
    }
}

fn owner(domain: &TrustDomain, path: &str, serial: &str) -> Owner {
    let agent = SpiffeId::new(domain, path).unwrap();
    Owner { trust_domain: domain.clone(), agent, serial: serial.to_owned() }
}

fn me() -> Owner {
    owner(&domain(), "/spire/agent/x", "41")
}

struct Rig {
    state: TempDir,
    secret: TempDir,
    vault: Vault,
}

impl Rig {
    fn new() -> Self {
        let (state, secret) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::Disk { state: state.path().to_owned(), secret: secret.path().to_owned() };
        let vault = Vault::new(&place);
        vault.bind(me());
        Self { state, secret, vault }
    }

    /// With a state in it.
    fn full() -> Self {
        let rig = Self::new();
        assert!(rig.store());
        rig
    }

    fn store(&self) -> bool {
        self.vault.store(self.vault.life().unwrap(), &kept()).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.state.path().join(STATE)
    }

    fn secret_file(&self) -> PathBuf {
        self.secret.path().join(SECRET)
    }

    fn why(&self, owner: &Owner) -> String {
        assert!(self.vault.load(owner).is_none());
        self.vault.read(owner).unwrap_err().to_string()
    }
}

#[test]
fn a_later_life_finds_all_that_was_kept() {
    let rig = Rig::full();
    assert_eq!(rig.vault.load(&me()), Some(kept()));
}

#[test]
fn nothing_kept_is_no_error_and_needs_no_message() {
    let rig = Rig::new();
    assert!(matches!(rig.vault.read(&me()), Err(Unusable::Missing)));
    let nowhere = Vault::new(&Place::Nowhere("because".into()));
    nowhere.bind(me());
    assert_eq!((nowhere.life(), nowhere.load(&me())), (None, None));
}

#[test]
fn the_files_are_private_and_show_no_key_and_no_token() {
    let rig = Rig::full();
    for path in [rig.file(), rig.secret_file()] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let bytes = fs::read(rig.file()).unwrap();
    for secret in [TOKEN.as_bytes(), KEY, b"unix:uid:1000"] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret));
    }
}

#[test]
fn what_is_another_domains_agents_or_svids_is_ignored_and_both_are_named() {
    let rig = Rig::full();
    let other = TrustDomain::new("other.test").unwrap();
    assert_eq!(
        rig.why(&owner(&other, "/spire/agent/x", "41")),
        "it is of trust domain \"example.org\", expected \"other.test\""
    );
    assert!(
        rig.why(&owner(&domain(), "/spire/agent/y", "41"))
            .contains("expected \"spiffe://example.org/spire/agent/y\"")
    );
    assert_eq!(
        rig.why(&owner(&domain(), "/spire/agent/x", "42")),
        "it is of the agent SVID with serial number \"41\", expected \"42\""
    );
}

#[test]
fn a_state_that_only_says_to_be_ours_is_ignored() {
    let rig = Rig::full();
    let sealed = form::unwrap(&fs::read(rig.file()).unwrap(), &me()).unwrap();
    let you = owner(&domain(), "/spire/agent/y", "41");
    fs::write(rig.file(), form::wrap(sealed, &you)).unwrap();
    assert_eq!(rig.why(&you), SealError::Open.to_string());
}

#[test]
fn a_state_torn_at_any_byte_is_ignored() {
    let rig = Rig::full();
    let whole = fs::read(rig.file()).unwrap();
    for end in 0..whole.len() {
        fs::write(rig.file(), &whole[..end]).unwrap();
        assert!(!rig.why(&me()).is_empty());
    }
    fs::write(rig.file(), whole).unwrap();
    assert!(rig.vault.load(&me()).is_some());
}

#[test]
fn a_state_with_any_bit_flipped_is_ignored() {
    let rig = Rig::full();
    let whole = fs::read(rig.file()).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(rig.file(), flipped).unwrap();
        assert!(rig.vault.read(&me()).is_err(), "bit {bit}");
    }
}

#[test]
fn a_write_cut_off_at_any_byte_leaves_the_state_of_before() {
    let rig = Rig::full();
    let whole = fs::read(rig.file()).unwrap();
    for end in 0..=whole.len() {
        fs::write(rig.state.path().join("sealed-state.tmp"), &whole[..end]).unwrap();
        assert!(rig.vault.read(&me()).is_ok());
    }
    assert!(rig.store(), "and the leftover is in nobody's way");
}

#[test]
fn a_stolen_state_is_nothing_without_its_secret() {
    let rig = Rig::full();
    fs::write(rig.secret_file(), [9; SECRET_LEN]).unwrap();
    assert_eq!(rig.why(&me()), SealError::Open.to_string());
    fs::write(rig.secret_file(), [9; SECRET_LEN - 1]).unwrap();
    assert!(rig.why(&me()).contains("has 31 bytes, expected 32"));
    fs::remove_file(rig.secret_file()).unwrap();
    assert!(!rig.why(&me()).is_empty());
    assert!(rig.store());
    assert!(rig.vault.load(&me()).is_some(), "the next write makes a new one");
}

#[test]
fn a_renewed_agent_svid_takes_the_state_over() {
    let rig = Rig::full();
    let renewed = owner(&domain(), "/spire/agent/x", "42");
    rig.vault.bind(renewed.clone());
    assert!(rig.store());
    assert_eq!(rig.vault.load(&renewed), Some(kept()));
    assert!(rig.vault.load(&me()).is_none());
}

#[test]
fn an_erased_state_is_gone_and_a_copy_of_it_opens_no_more() {
    let rig = Rig::full();
    let copy = fs::read(rig.file()).unwrap();
    rig.vault.erase();
    assert!(!rig.file().exists() && !rig.secret_file().exists());
    rig.vault.bind(me());
    assert!(rig.store());
    fs::write(rig.file(), copy).unwrap();
    assert_eq!(rig.why(&me()), SealError::Open.to_string());
}

#[test]
fn what_was_gathered_before_an_erasure_is_not_written_after() {
    let rig = Rig::full();
    let life = rig.vault.life().unwrap();
    rig.vault.erase();
    assert!(!rig.vault.store(life, &kept()).unwrap());
    rig.vault.bind(me());
    assert!(!rig.vault.store(life, &kept()).unwrap());
    assert!(!rig.file().exists());
}

#[test]
fn a_state_beyond_the_limit_is_neither_kept_nor_read() {
    let whole = form::encode(&kept(), usize::MAX).unwrap();
    assert!(form::encode(&kept(), whole.len()).is_some());
    assert!(form::encode(&kept(), whole.len() - 1).is_none());
    let rig = Rig::new();
    File::create(rig.file()).unwrap().set_len(SEALED_STATE_MAX as u64 + 1).unwrap();
    assert!(matches!(rig.vault.read(&me()), Err(Unusable::TooBig(_))));
}

#[test]
fn a_state_that_can_not_be_written_anew_does_not_bring_back_what_was_withdrawn() {
    let rig = Rig::full();
    // A directory in the way of the new file: even root can't write over it.
    fs::create_dir(rig.state.path().join("sealed-state.tmp")).unwrap();
    assert!(rig.vault.store(rig.vault.life().unwrap(), &Kept::default()).is_err());
    assert!(matches!(rig.vault.read(&me()), Err(Unusable::Missing)));
}

#[test]
fn a_big_state_is_the_same_after_its_buffer_has_grown() {
    let mut many = kept();
    let one = many.cache.entries[0].clone();
    for n in 0..2000 {
        let mut parts = one.to_parts();
        parts.id = avouch_domain::EntryId::new(&format!("e{n}")).unwrap();
        many.cache.entries.push(Entry::new(parts).unwrap());
    }
    let plain = form::encode(&many, usize::MAX).unwrap();
    assert_eq!(form::decode(&me().agent, &plain), Ok(many));
}

#[test]
fn an_agents_moment_is_kept_to_the_millisecond() {
    let rig = Rig::full();
    let now = avouch_domain::Now { wall: Timestamp(0), mono: Tick(789) + Duration::from_secs(1) };
    assert_eq!(rig.vault.load(&me()).unwrap().latest.carried(now, "boot"), Timestamp(124_456));
}
