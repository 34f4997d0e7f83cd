//! Rows in process: the whole way from a request's bytes to an SVID's bytes, and the decisions of the registry.
//!
//! Two parts: times, which other work on the machine disturbs, and counts, which it does not. Instructions are counted by
//! valgrind in a process of its own and held against the figure checked in here; allocations are told beside them.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use avouch_credential::jwt::issue::{JwtIssuer, JwtTemplate};
use avouch_credential::key::PrivateKey;
use avouch_credential::random;
use avouch_credential::x509::csr::{self, Csr, CsrTemplate};
use avouch_credential::x509::issue::{CaTemplate, Issuer, LeafTemplate, self_signed_ca};
use avouch_credential::x509::name::Name;
use avouch_domain::fixtures::{domain, entry, id};
use avouch_domain::{EntryId, Image, KeyType, LogPosition, Row, Timestamp};
use avouch_engine::entitle::{View, is_authorized};
use avouch_engine::plan::entries::{NewEntry, create};
use avouch_engine::registry::Registry;

use crate::report::{Bar, Report};
use crate::yardstick::{self, measure};

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
/// First word of the command line of a process that valgrind watches.
pub const WORD: &str = "in-process";
/// Entries below one parent in the rows about the registry.
const ENTRIES: usize = 1000;
/// A row is over its bar when it takes this much more than its figure.
const MORE: f64 = 1.03;
/// Calls in the shorter of two runs; what both do once falls out of their difference.
const FEW: u64 = 10;
const MANY: u64 = 510;

type Call = Box<dyn FnMut()>;

/// One thing done in process.
struct InProcess {
    word: &'static str,
    what: &'static str,
    /// Instructions when last measured, with the profile `ci`.
    figure: f64,
    make: fn() -> Call,
}

const ROWS: [InProcess; 5] = [
    InProcess { word: "x509", what: "X.509-SVID from a CSR", figure: 975_000.0, make: x509_from_csr },
    InProcess { word: "jwt", what: "JWT-SVID", figure: 208_000.0, make: jwt },
    InProcess {
        word: "create",
        what: "one entry planned and applied among 1,000",
        // 3,000 of them keep an entry's card in the index by parent, from which syncs are read.
        figure: 47_500.0,
        make: create_one,
    },
    InProcess { word: "authorized", what: "is this entry this agent's", figure: 1_313.0, make: authorized },
    InProcess { word: "view", what: "the 1,000 entries of an agent", figure: 82_500.0, make: view },
];

/// Times of what is signed.
pub fn times(report: &Report) {
    report.ratio(ROWS[0].what, measure(x509_from_csr()), yardstick::floor(), Bar::AtMost(1.25));
    report.ratio(ROWS[1].what, measure(jwt()), yardstick::sign(), Bar::AtMost(1.25));
}

/// Instructions and allocations of every row.
pub fn counts(report: &Report) {
    for row in &ROWS {
        let (instructions, allocations) =
            (format!("{}: instructions", row.what), format!("{}: allocations", row.what));
        match each(row.word, "--tool=callgrind", collected) {
            Ok(count) => {
                let most = (row.figure * MORE).round();
                report.plain(&instructions, count, "", Bar::AtMost(most));
            }
            Err(reason) => report.absent(&instructions, &reason),
        }
        match each(row.word, "--tool=memcheck", allocated) {
            Ok(count) => report.plain(&allocations, count, "", Bar::Free),
            Err(reason) => report.absent(&allocations, &reason),
        }
    }
}

/// What a process under valgrind does: one of the rows so many times.
pub fn repeat(word: &str, times: &str) {
    let row = ROWS.iter().find(|row| row.word == word).expect("a row");
    let mut call = (row.make)();
    for _ in 0..times.parse::<u64>().expect("a number") {
        call();
    }
}

/// What valgrind counts for one call.
fn each(word: &str, tool: &str, read: fn(&str) -> Option<f64>) -> Result<f64, String> {
    let count = |times: u64| {
        let this = std::env::current_exe().expect("this file");
        let mut valgrind = Command::new("valgrind");
        valgrind.arg(tool).args(if tool.ends_with("callgrind") {
            ["--callgrind-out-file=/dev/null"].as_slice()
        } else {
            ["--undef-value-errors=no", "--leak-check=no"].as_slice()
        });
        let output = valgrind.arg(this).args([WORD, word, &times.to_string()]).output();
        let output = output.map_err(|e| format!("valgrind: {e}"))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        read(&text)
            .ok_or_else(|| format!("valgrind gave no count: {}", text.lines().last().unwrap_or_default()))
    };
    Ok((count(MANY)? - count(FEW)?) / (MANY - FEW) as f64)
}

fn number_after(text: &str, mark: &str) -> Option<f64> {
    let rest = text.split(mark).nth(1)?.trim_start();
    let number = rest.split_whitespace().next()?.replace(',', "");
    number.parse().ok()
}

fn collected(text: &str) -> Option<f64> {
    number_after(text, "Collected :")
}

fn allocated(text: &str) -> Option<f64> {
    number_after(text, "total heap usage:")
}

/// CSR parsed and verified, leaf built and signed.
fn x509_from_csr() -> Call {
    let id = id("/web");
    let ca_key = Arc::new(PrivateKey::generate(KeyType::EcP256).expect("a key"));
    let template = CaTemplate {
        trust_domain: &domain(),
        subject: &Name::ca_default(),
        serial: random::serial().expect("a serial"),
        now: NOW,
        ttl: 24 * HOUR,
    };
    let ca = self_signed_ca(&template, ca_key.as_ref()).expect("a CA");
    let issuer = Issuer::new(&ca.der, ca_key).expect("an issuer");
    let key = PrivateKey::generate(KeyType::EcP256).expect("a key");
    let subject = Name::svid_default();
    let request =
        csr::build(&CsrTemplate { subject: &subject, id: Some(&id), dns_names: &[] }, &key).expect("a CSR");
    Box::new(move || {
        let csr = Csr::parse(&request).expect("a CSR");
        csr.verify().expect("a true signature");
        let leaf = LeafTemplate {
            id: &id,
            public_key: csr.public_key(),
            dns_names: &[],
            subject: &subject,
            serial: random::serial().expect("a serial"),
            now: NOW,
            ttl: HOUR,
        };
        std::hint::black_box(issuer.leaf(&leaf).expect("a leaf"));
    })
}

/// A JWT-SVID built and signed.
fn jwt() -> Call {
    let id = id("/web");
    let key = Arc::new(PrivateKey::generate(KeyType::EcP256).expect("a key"));
    let issuer = JwtIssuer::new("kid", key, NOW + 24 * HOUR).expect("an issuer");
    let audience = vec!["db".to_owned()];
    Box::new(move || {
        let template = JwtTemplate {
            id: &id,
            audience: &audience,
            issuer: None,
            jti: None,
            now: NOW,
            ttl: 5 * HOUR / 60,
        };
        std::hint::black_box(issuer.sign(&template).expect("a token"));
    })
}

fn registry() -> Registry {
    let one = |n| {
        let (name, path, selector) = (format!("e{n:04}"), format!("/w/{n}"), format!("unix:uid:{n}"));
        Row::Entry(entry(&name, &path, "/spire/agent/join_token/a", &[&selector]))
    };
    let rows = (0..ENTRIES).map(one).collect();
    Registry::from_image(Image { position: LogPosition::default(), rows, read_at: NOW })
}

fn create_one() -> Call {
    let registry = registry();
    let parts = entry("x", "/new", "/spire/agent/join_token/a", &["unix:uid:0"]).to_parts();
    let item = NewEntry {
        id: None,
        spiffe_id: parts.spiffe_id,
        parent_id: parts.parent_id,
        selectors: parts.selectors,
        x509_svid_ttl: parts.x509_svid_ttl,
        jwt_svid_ttl: parts.jwt_svid_ttl,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: Vec::new(),
        store_svid: false,
        hint: String::new(),
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
    };
    let (items, fresh) = ([item], [EntryId::new("fresh").expect("an ID")]);
    Box::new(move || {
        let (plan, made) = create(&registry, NOW, "bench", &items, &fresh);
        assert!(made.iter().all(Result::is_ok));
        let mut after = registry.clone();
        after.apply(&plan, LogPosition::default());
        std::hint::black_box(after);
    })
}

fn authorized() -> Call {
    let (registry, agent) = (registry(), id("/spire/agent/join_token/a"));
    let wanted = EntryId::new("e0500").expect("an ID");
    Box::new(move || {
        assert!(std::hint::black_box(is_authorized(&registry, &agent, &wanted, NOW)).is_some());
    })
}

fn view() -> Call {
    let (registry, agent) = (registry(), id("/spire/agent/join_token/a"));
    Box::new(move || {
        let view = View::new(&registry, &agent, NOW);
        assert_eq!(std::hint::black_box(view.entries()).len(), ENTRIES);
    })
}
