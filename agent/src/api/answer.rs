//! Answers of the Workload API as bytes: made once per distinct state, shared by all streams, wiped when unused.
//!
//! Never an empty `svids`, never a bundle without authorities, never more than clients take.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use avouch_credential::bundle_doc::workload_jwks;
use avouch_credential::jwt::verify::JwtKeys;
use avouch_credential::x509::facts::check_authority;
use avouch_domain::{Bundle, EntryId, Timestamp};
use parking_lot::Mutex;
use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use zeroize::Zeroizing;

use super::status::Refusal;
use crate::limits::{ANSWER_MAX, ANSWER_WARN};
use crate::supply::{Identity, JwtGrant, WorkloadUpdate};

/// Which streaming call an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    X509Svid,
    X509Bundles,
    JwtBundles,
}

/// An encoded answer and its digest, by which repeats are recognized.
#[derive(Clone)]
pub struct Encoded {
    pub bytes: Bytes,
    pub mark: [u8; 32],
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoded").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct TooLittle(&'static str);

#[derive(Default)]
struct Answers {
    x509: OnceLock<Result<Encoded, TooLittle>>,
    x509_bundles: OnceLock<Result<Encoded, TooLittle>>,
    jwt_bundles: OnceLock<Result<Encoded, TooLittle>>,
    keys: OnceLock<Arc<JwtKeys>>,
}

/// What a bundle looks like in answers.
struct BundleForms {
    /// `spiffe://td`
    key: String,
    /// DER authorities, one after the other.
    x509: Vec<u8>,
    jwks: Vec<u8>,
}

/// Values derived from a shared value, found by its address and dropped after it.
struct Derived<K, V> {
    table: HashMap<usize, (Weak<K>, Arc<V>)>,
    sweep_at: usize,
    /// Holders that left since the last sweep.
    left: usize,
}

impl<K, V> Derived<K, V> {
    fn new() -> Self {
        Self { table: HashMap::new(), sweep_at: 1, left: 0 }
    }

    fn of(&mut self, source: &Arc<K>, make: impl FnOnce() -> V) -> Arc<V> {
        let address = Arc::as_ptr(source) as usize;
        // The weak pointer keeps the address from being used again, so equal address means equal source.
        if let Some((known, value)) = self.table.get(&address)
            && known.strong_count() > 0
        {
            return value.clone();
        }
        if self.table.len() >= self.sweep_at {
            self.sweep();
        }
        let value = Arc::new(make());
        self.table.insert(address, (Arc::downgrade(source), value.clone()));
        value
    }

    /// Drops what belongs to sources that are gone. Done when the table has doubled or half of the holders have
    /// left since the last time, so it costs next to nothing for each and never more than half is dead.
    fn sweep(&mut self) {
        self.table.retain(|_, (known, _)| known.strong_count() > 0);
        self.sweep_at = (self.table.len() * 2).max(1);
        self.left = 0;
    }

    fn one_left(&mut self) {
        self.left += 1;
        if self.left * 2 >= self.table.len() {
            self.sweep();
        }
    }
}

/// All answers in use.
pub struct AnswerBook {
    updates: Mutex<Derived<WorkloadUpdate, Answers>>,
    bundles: Mutex<Derived<Bundle, BundleForms>>,
}

impl std::fmt::Debug for AnswerBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerBook")
    }
}

impl Default for AnswerBook {
    fn default() -> Self {
        Self { updates: Mutex::new(Derived::new()), bundles: Mutex::new(Derived::new()) }
    }
}

type Make = fn(&AnswerBook, &WorkloadUpdate) -> Result<Zeroizing<Vec<u8>>, TooLittle>;

impl AnswerBook {
    /// The answer of `kind` for a state; encoded at the first ask.
    ///
    /// # Errors
    /// [`Refusal::Answer`] if the state holds too little for a valid answer.
    pub fn answer(&self, kind: Kind, update: &Arc<WorkloadUpdate>) -> Result<Encoded, Refusal> {
        let answers = self.updates.lock().of(update, Answers::default);
        let (slot, make): (_, Make) = match kind {
            Kind::X509Svid => (&answers.x509, Self::x509_svids),
            Kind::X509Bundles => (&answers.x509_bundles, Self::x509_bundles),
            Kind::JwtBundles => (&answers.jwt_bundles, Self::jwt_bundles),
        };
        let encoded = slot.get_or_init(|| make(self, update).map(|bytes| sealed(bytes, kind)));
        encoded.clone().map_err(|e| Refusal::Answer(e.0.to_owned()))
    }

    /// The keys that verify JWT-SVIDs for whoever sees this state; parsed at the first ask.
    pub fn keys(&self, update: &Arc<WorkloadUpdate>) -> Arc<JwtKeys> {
        let answers = self.updates.lock().of(update, Answers::default);
        let bundles = || std::iter::once(&update.own).chain(&update.federated).map(Arc::as_ref);
        answers.keys.get_or_init(|| Arc::new(JwtKeys::new(bundles()))).clone()
    }

    /// A stream ended: answers whose state nobody holds any more are forgotten, and the keys in them wiped.
    pub fn one_left(&self) {
        self.updates.lock().one_left();
        self.bundles.lock().one_left();
    }

    /// Distinct states with answers.
    #[cfg(test)]
    pub fn states(&self) -> usize {
        self.updates.lock().table.len()
    }

    fn forms(&self, bundle: &Arc<Bundle>) -> Arc<BundleForms> {
        self.bundles.lock().of(bundle, || BundleForms::of(bundle))
    }

    fn x509_svids(&self, update: &WorkloadUpdate) -> Result<Zeroizing<Vec<u8>>, TooLittle> {
        let own = self.forms(&update.own);
        if own.x509.is_empty() {
            return Err(TooLittle("the bundle of the trust domain has no X.509 authority"));
        }
        let chosen = without_repeated_hints(&update.identities, |i| (&i.hint, i.created_at, &i.entry_id));
        if chosen.is_empty() {
            return Err(TooLittle("no X.509-SVID is there yet"));
        }
        let svids: Vec<_> = chosen.iter().map(|identity| X509Fields::new(identity, &own.x509)).collect();
        let base = svids.iter().map(|svid| message_len(1, svid.len())).sum();
        let federated = self.federated(update, 3, base, |forms| &forms.x509);
        let mut out = buffer(base, 3, &federated, |forms| &forms.x509);
        for svid in &svids {
            svid.put(&mut out);
        }
        put_map(&mut out, 3, &federated, |forms| &forms.x509);
        Ok(out)
    }

    fn x509_bundles(&self, update: &WorkloadUpdate) -> Result<Zeroizing<Vec<u8>>, TooLittle> {
        if self.forms(&update.own).x509.is_empty() {
            return Err(TooLittle("the bundle of the trust domain has no X.509 authority"));
        }
        Ok(self.bundle_map(update, 2, |forms| &forms.x509))
    }

    // The two sisters have one shape in the table above.
    #[allow(clippy::unnecessary_wraps)]
    fn jwt_bundles(&self, update: &WorkloadUpdate) -> Result<Zeroizing<Vec<u8>>, TooLittle> {
        Ok(self.bundle_map(update, 1, |forms| &forms.jwks))
    }

    fn bundle_map(
        &self,
        update: &WorkloadUpdate,
        number: u32,
        value: fn(&BundleForms) -> &Vec<u8>,
    ) -> Zeroizing<Vec<u8>> {
        let own = self.forms(&update.own);
        let base = message_len(number, entry_len(&own.key, value(&own)));
        let mut all = vec![own];
        all.extend(self.federated(update, number, base, value));
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let mut out = buffer(0, number, &all, value);
        put_map(&mut out, number, &all, value);
        out
    }

    /// The foreign bundles that have something to say and still fit beside `base` bytes.
    fn federated(
        &self,
        update: &WorkloadUpdate,
        number: u32,
        base: usize,
        value: fn(&BundleForms) -> &Vec<u8>,
    ) -> Vec<Arc<BundleForms>> {
        let mut size = base;
        let mut left_out = 0_usize;
        let mut chosen = Vec::with_capacity(update.federated.len());
        for bundle in update.federated.iter().filter(|b| b.trust_domain != update.own.trust_domain) {
            let forms = self.forms(bundle);
            if value(&forms).is_empty() {
                continue; // several clients refuse a whole answer for one empty bundle
            }
            size += message_len(number, entry_len(&forms.key, value(&forms)));
            if size < ANSWER_MAX {
                chosen.push(forms);
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 {
            tracing::error!(
                subsystem_name = "endpoints",
                bytes = size,
                limit = ANSWER_MAX,
                left_out,
                "Answer would be larger than clients accept; federated bundles are left out"
            );
        }
        chosen
    }
}

impl BundleForms {
    fn of(bundle: &Bundle) -> Self {
        let mut x509 = Vec::new();
        for authority in &bundle.x509_authorities {
            match check_authority(&authority.der) {
                Ok(_) => x509.extend_from_slice(&authority.der),
                Err(error) => tracing::warn!(
                    subsystem_name = "endpoints",
                    trust_domain_id = %bundle.trust_domain,
                    %error,
                    "Left an unusable X.509 authority out of a bundle"
                ),
            }
        }
        Self { key: bundle.trust_domain.id().to_string(), x509, jwks: workload_jwks(bundle) }
    }
}

/// The JWTSVIDResponse of some grants; none are left if hints repeat.
///
/// # Errors
/// [`Refusal::NoIdentity`] for an empty list.
pub fn jwt_answer(grants: &[JwtGrant]) -> Result<Bytes, Refusal> {
    let chosen = without_repeated_hints(grants, |g| (&g.hint, g.created_at, &g.entry_id));
    if chosen.is_empty() {
        return Err(Refusal::NoIdentity);
    }
    let fields = |grant: &JwtGrant| {
        [
            (1, field_len(1, grant.svid.id.as_str().len())),
            (2, field_len(2, grant.svid.token.len())),
            (3, field_len(3, grant.hint.len())),
        ]
        .iter()
        .map(|(_, len)| len)
        .sum::<usize>()
    };
    let total = chosen.iter().map(|g| message_len(1, fields(g))).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(total));
    for grant in chosen {
        put_head(&mut out, 1, fields(grant));
        put_field(&mut out, 1, grant.svid.id.as_str().as_bytes());
        put_field(&mut out, 2, grant.svid.token.as_bytes());
        put_field(&mut out, 3, grant.hint.as_bytes());
    }
    Ok(Bytes::from_owner(Wiped(out)))
}

/// Of several with one hint only the oldest stays: by creation, then by entry ID (WA-26).
fn without_repeated_hints<T>(all: &[T], facts: impl Fn(&T) -> (&Arc<str>, Timestamp, &EntryId)) -> Vec<&T> {
    let mut oldest: HashMap<&str, (Timestamp, &EntryId)> = HashMap::new();
    for (hint, created, id) in all.iter().map(&facts).filter(|(hint, ..)| !hint.is_empty()) {
        let best = oldest.entry(hint).or_insert((created, id));
        *best = (*best).min((created, id));
    }
    let keep = |item: &&T| {
        let (hint, created, id) = facts(item);
        let stays = oldest.get(&**hint).is_none_or(|best| *best == (created, id));
        if !stays {
            tracing::warn!(
                subsystem_name = "endpoints",
                entry_id = %id,
                hint = %hint,
                "Ignoring entry with duplicate hint"
            );
        }
        stays
    };
    all.iter().filter(keep).collect()
}

fn sealed(bytes: Zeroizing<Vec<u8>>, kind: Kind) -> Encoded {
    if bytes.len() > ANSWER_WARN {
        tracing::warn!(
            subsystem_name = "endpoints",
            bytes = bytes.len(),
            limit = ANSWER_MAX,
            answer = ?kind,
            "Answer is large; clients refuse more than 4 MiB"
        );
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    let mut mark = [0; 32];
    mark.copy_from_slice(digest.as_ref());
    Encoded { bytes: Bytes::from_owner(Wiped(bytes)), mark }
}

/// Bytes that are zeroed when the last answer that shares them is gone.
struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// One X509SVID message, field by field, without a copy of the key in between.
struct X509Fields<'a> {
    identity: &'a Identity,
    chain_len: usize,
    bundle: &'a [u8],
}

impl<'a> X509Fields<'a> {
    fn new(identity: &'a Identity, bundle: &'a [u8]) -> Self {
        Self { identity, chain_len: identity.svid.chain.iter().map(|c| c.len()).sum(), bundle }
    }

    fn len(&self) -> usize {
        field_len(1, self.identity.svid.id.as_str().len())
            + field_len(2, self.chain_len)
            + field_len(3, self.identity.svid.key.len())
            + field_len(4, self.bundle.len())
            + field_len(5, self.identity.hint.len())
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_head(out, 1, self.len());
        put_field(out, 1, self.identity.svid.id.as_str().as_bytes());
        put_head(out, 2, self.chain_len);
        for certificate in self.identity.svid.chain.iter() {
            out.extend_from_slice(certificate);
        }
        put_field(out, 3, &self.identity.svid.key);
        put_field(out, 4, self.bundle);
        put_field(out, 5, self.identity.hint.as_bytes());
    }
}

/// Big enough from the start: a buffer that grows leaves copies of keys behind.
fn buffer(
    base: usize,
    number: u32,
    map: &[Arc<BundleForms>],
    value: fn(&BundleForms) -> &Vec<u8>,
) -> Zeroizing<Vec<u8>> {
    let entries: usize = map.iter().map(|f| message_len(number, entry_len(&f.key, value(f)))).sum();
    Zeroizing::new(Vec::with_capacity(base + entries))
}

fn put_map(out: &mut Vec<u8>, number: u32, map: &[Arc<BundleForms>], value: fn(&BundleForms) -> &Vec<u8>) {
    for forms in map {
        put_head(out, number, entry_len(&forms.key, value(forms)));
        put_field(out, 1, forms.key.as_bytes());
        put_field(out, 2, value(forms));
    }
}

fn entry_len(key: &str, value: &[u8]) -> usize {
    field_len(1, key.len()) + field_len(2, value.len())
}

/// Size of a length-delimited field with this content; empty ones are left out.
fn field_len(number: u32, content: usize) -> usize {
    if content == 0 { 0 } else { message_len(number, content) }
}

fn message_len(number: u32, content: usize) -> usize {
    key_len(number) + encoded_len_varint(content as u64) + content
}

fn put_head(out: &mut Vec<u8>, number: u32, content: usize) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content as u64, out);
}

fn put_field(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    if !content.is_empty() {
        put_head(out, number, content.len());
        out.extend_from_slice(content);
    }
}
