//! Runs on this node: who runs as what, which processes belong to a run, and what a run may do right now.
//!
//! A process of a run has the selector of the run and no other, so that it never wears another identity. What belongs to
//! whom is decided in `avouch_engine::runs`, what may be done in `avouch_rules`. Never answers before the record of the
//! answer is in the spool.

pub(crate) mod asking;
pub(crate) mod deciding;
mod desk;
mod own;
pub(crate) mod receipts;
mod refused;
mod roots;
mod scribe;
pub(crate) mod secrets;
#[cfg(test)]
mod tests;
mod tokens;
mod turned_away;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use avouch_attestors::code::{CodeError, code_of};
use avouch_attestors::process::Link;
use avouch_attestors::{PinnedProcess, ProcessGone};
use avouch_domain::{CodeDigest, NodeEvent, Note, Now, SelectorSet, SpiffeId, run_selector};
use avouch_engine::runs::{self, Belongs, Process, Refusal, Run};
use parking_lot::Mutex;
use tokio::time::timeout;

pub use deciding::{Answer, Question, Said};
pub use own::{NoRun, OwnCode};
pub use receipts::{Did, NoReceipt};
pub use scribe::Scribe;
pub use secrets::Secret;
pub use tokens::TokenError;

use crate::heard::Heard;
use crate::limits::{RULES_WAIT, TASK_CALLS, TASK_CALLS_MAX};
use crate::peer::Caller;
use crate::proof::Proof;
use crate::records::Durability;
use crate::rules::{Book, Held};
use crate::supply::{Feed, Supply, Want};
use crate::upstream::{CallError, Governed, Identities, Requests, Tasks};
use crate::used::Used;
use desk::{Desk, Opening, Standing};
use roots::{Roots, is_alive};
use turned_away::TurnedAway;

/// What the runs of a node work with.
pub struct Parts {
    pub supply: Arc<dyn Supply>,
    pub identities: Arc<dyn Identities>,
    pub requests: Arc<dyn Requests>,
    pub tasks: Arc<dyn Tasks>,
    pub rules: Book,
    /// Runs rest on it, while there are any.
    pub heard: Heard,
    pub proof: Proof,
    pub scribe: Arc<dyn Scribe>,
    /// `None`: nobody wants to know what is used.
    pub used: Option<Used>,
    /// Folders of the agent's own.
    pub own_folders: Vec<PathBuf>,
    /// The folder whose files are the agent's to hand out to gates, if any.
    pub gate_secrets: Option<PathBuf>,
    /// Where it is kept which processes are roots of runs.
    pub folder: PathBuf,
    pub clock: fn() -> Now,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// All runs of this node. Cheap to clone.
#[derive(Clone)]
pub struct Runs(Arc<Inner>);

struct Inner {
    parts: Parts,
    table: Mutex<Table>,
    /// Never locked beside the table.
    roots: Mutex<Roots>,
    /// False while no process can belong to a run: then nobody looks at anybody's ancestors.
    any: AtomicBool,
    turned_away: Mutex<TurnedAway>,
}

#[derive(Default)]
struct Table {
    runs: runs::Runs,
    /// Connections of processes of each run, by its root: they end with it.
    callers: BTreeMap<Process, Vec<Weak<Caller>>>,
    /// Where each run is decided for, by its root: from when its beginning is recorded to its end.
    desks: BTreeMap<Process, Arc<Desk>>,
}

/// What a process is as far as runs are concerned.
enum Found {
    Nobody,
    Left,
    /// The root of its run, and the run.
    In(Process, Run),
}

/// What a caller is as far as runs are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    Nobody,
    /// Its selectors, and the identity.
    Of(SelectorSet, SpiffeId),
    /// Left over from a run that has ended.
    Left,
}

/// What somebody wants to run.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// A SPIFFE ID, or the last part of one.
    pub identity: String,
    /// A code.
    pub task: String,
    /// IDs of resources.
    pub tools: Vec<String>,
    /// 0: as many as tasks have.
    pub calls: u32,
    /// Absolute paths.
    pub code: Vec<String>,
    /// The supervisor says that the kernel keeps the command in.
    pub confined: bool,
}

/// Why no run begins.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error(
        "nothing lets user {uid} run \"{name}\" on this node: its owner does with `avouch identity place`{may}"
    )]
    NotPlaced { name: String, uid: u32, may: String },
    #[error("\"{name}\" means several identities, expected one of {several}")]
    Several { name: String, several: String },
    #[error("{0} is not in force: `avouch identity show` says why")]
    NotInForce(SpiffeId),
    #[error(
        "{name} is to be run with other code than it has ({found}, expected {expected}){paused}: if that is meant, \
         `avouch identity set {name} --code {found}`"
    )]
    OtherCode { name: SpiffeId, expected: CodeDigest, found: CodeDigest, paused: &'static str },
    #[error("no run begins while the server is away: {0}")]
    Away(CallError),
    #[error("task \"{0}\": expected a code of lowercase letters, digits and dashes, such as fix-4711")]
    Task(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error(transparent)]
    Gone(#[from] ProcessGone),
    #[error("the run can't be recorded, so it does not begin: {0}")]
    Record(String),
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").field("live", &self.0.table.lock().runs.len()).finish()
    }
}

fn process_of(link: Link) -> Process {
    Process { pid: link.pid, start_time: link.start_time }
}

fn line_of(process: &PinnedProcess) -> Result<Vec<Process>, ProcessGone> {
    Ok(process.line()?.into_iter().map(process_of).collect())
}

impl Runs {
    /// Goes on with the roots of an earlier life, which belong to nobody until they have begun again.
    ///
    /// # Errors
    /// The folder can't be used.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let (roots, live) = Roots::open(parts.folder.clone())?;
        let mut table = Table::default();
        live.into_iter().for_each(|(root, identity)| table.runs.was_root(root, identity));
        let any = AtomicBool::new(!table.runs.is_empty());
        Ok(Self(Arc::new(Inner {
            parts,
            table: Mutex::new(table),
            roots: Mutex::new(roots),
            any,
            turned_away: Mutex::default(),
        })))
    }

    /// The agent's own SPIFFE ID.
    #[must_use]
    pub fn agent_id(&self) -> SpiffeId {
        self.0.parts.identities.agent_id()
    }

    /// Whether a caller belongs to a run. Its connection then ends with the run.
    ///
    /// # Errors
    /// [`ProcessGone`] if it can't be told.
    pub fn membership(
        &self,
        caller: &Arc<Caller>,
        process: &PinnedProcess,
    ) -> Result<Membership, ProcessGone> {
        Ok(match self.found(caller, process)? {
            Found::Nobody => Membership::Nobody,
            Found::Left => Membership::Left,
            Found::In(_, run) => match selectors(&run.identity, run.uid) {
                Some(selectors) => Membership::Of(selectors, run.identity),
                None => Membership::Left,
            },
        })
    }

    fn found(&self, caller: &Arc<Caller>, process: &PinnedProcess) -> Result<Found, ProcessGone> {
        if !self.0.any.load(Ordering::Acquire) {
            return Ok(Found::Nobody);
        }
        let read;
        let line = match caller.in_run() {
            Some(known) => known,
            None => {
                read = line_of(process)?;
                &read
            }
        };
        let table = &mut *self.0.table.lock();
        let (root, run) = match table.runs.belongs(line) {
            // Below a root that is neither live nor known as ended: it has left its run.
            Belongs::Nobody if caller.in_run().is_some() => return Ok(Found::Left),
            Belongs::Nobody => return Ok(Found::Nobody),
            Belongs::Left => return Ok(Found::Left),
            Belongs::To(root, run) => (root, run.clone()),
        };
        let Some(itself) = line.first().filter(|itself| table.runs.saw(root, **itself, is_alive)) else {
            return Ok(Found::Left);
        };
        // A connection asks many times.
        if caller.enters_run(*itself, root) {
            let callers = table.callers.entry(root).or_default();
            if callers.len().is_power_of_two() {
                callers.retain(|caller| caller.strong_count() > 0);
            }
            callers.push(Arc::downgrade(caller));
        }
        Ok(Found::In(root, run))
    }

    /// Where the live run of a root is decided for.
    fn desk_of(&self, root: &Process) -> Option<Arc<Desk>> {
        self.0.table.lock().desks.get(root).cloned()
    }

    /// Records that a user was let run nothing, unless that was recorded often enough.
    async fn turned_away(&self, uid: u32, identity: &str, why: &'static str) {
        let Some(silent) = self.0.turned_away.lock().take(uid, (self.0.parts.clock)().mono) else { return };
        let mut detail = vec![("why", why.to_owned())];
        if silent > 0 {
            detail.push(("not_recorded", silent.to_string()));
        }
        let (actor, subject) = (format!("uid:{uid}"), shown(identity));
        let note = Note { event: NodeEvent::InstanceRefused, actor, subject, detail };
        // A refusal that can't be recorded still is one.
        let _ = self.0.parts.scribe.write(note, Durability::Soon).await;
    }

    /// Begins a run whose root is the caller.
    ///
    /// # Errors
    /// [`BeginError`]; then nothing has begun.
    pub async fn begin(&self, caller: &Arc<Caller>, wanted: Wanted) -> Result<Running, BeginError> {
        let begun = self.try_begin(caller, &wanted).await;
        if let Err(
            error @ (BeginError::Refused(_)
            | BeginError::NotPlaced { .. }
            | BeginError::NotInForce(_)
            | BeginError::OtherCode { .. }),
        ) = &begun
        {
            self.turned_away(caller.uid, &wanted.identity, error.word()).await;
        }
        begun
    }

    async fn try_begin(&self, caller: &Arc<Caller>, wanted: &Wanted) -> Result<Running, BeginError> {
        let process = caller.process()?;
        let line = line_of(&process)?;
        let uid = process.uid();
        // Looked at before anything else is done for it, and again when it begins.
        self.0.table.lock().runs.may_begin(&line)?;
        let task =
            avouch_domain::Code::new(&wanted.task).map_err(|_| BeginError::Task(shown(&wanted.task)))?;
        let name = self.find(&wanted.identity, uid).await?;
        let Some(selectors) = selectors(&name, uid) else { return Err(BeginError::NotInForce(name)) };
        let asked_at = (self.0.parts.clock)().mono;
        let told = self.0.parts.identities.identity(&name).await.map_err(BeginError::Away)?;
        let Some(identity) = told.identity else { return Err(BeginError::NotInForce(name)) };
        // Who has heard that rules are in force finds them in force.
        let _ = timeout(RULES_WAIT, self.0.parts.rules.reached(told.rules_number)).await;
        let mut followed =
            Followed::new(self.0.parts.supply.subscribe(selectors.clone(), Want::Bundles).await);
        if !followed.begins().await {
            return Err(BeginError::NotInForce(name));
        }
        let beside = Followed::new(self.0.parts.supply.subscribe(selectors, Want::Bundles).await);
        let code = {
            let (process, paths) = (process.clone(), wanted.code.clone());
            let read = tokio::task::spawn_blocking(move || code_of(&process, &paths)).await;
            read.map_err(|_| BeginError::Gone(ProcessGone::Exited))??
        };
        if let Some(expected) = identity.code.filter(|expected| *expected != code) {
            return Err(self.other_code(&identity, expected, code).await);
        }
        let root = line.first().copied().ok_or(ProcessGone::Exited)?;
        {
            let table = &mut *self.0.table.lock();
            table.runs.begin(&line, Run { identity: name.clone(), uid }, identity.runs_max)?;
            table.callers.entry(root).or_default().push(Arc::downgrade(caller));
            self.0.any.store(true, Ordering::Release);
        }
        self.0.parts.heard.want(true);
        let kept = self.0.roots.lock().put(root, &name);
        if let Err(e) = kept {
            self.end(root);
            return Err(BeginError::Record(e.to_string()));
        }
        let calls_left = if wanted.calls == 0 { TASK_CALLS } else { wanted.calls.min(TASK_CALLS_MAX) };
        let opening = Opening {
            task,
            instance: format!("ins_{}", uuid::Uuid::new_v4().simple()),
            tools: wanted.tools.iter().cloned().collect(),
            calls: calls_left,
            asked_at,
            followed: beside,
            beginner: process.key().clone(),
        };
        let desk = Arc::new(Desk::new(identity.clone(), opening));
        let mut running =
            Running { runs: self.clone(), root, uid, desk, identity, code, followed, told: false };
        running.record_start(uid, wanted.confined).await.map_err(BeginError::Record)?;
        self.0.table.lock().desks.insert(root, running.desk.clone());
        Ok(running)
    }

    /// What acts by itself is paused for other code, wherever it runs.
    async fn other_code(&self, identity: &Governed, expected: CodeDigest, found: CodeDigest) -> BeginError {
        let name = identity.name.clone();
        let told = match identity.kind.acts_by_itself() {
            // Also if whoever began it does not wait for it.
            true => {
                let (identities, of) = (Arc::clone(&self.0.parts.identities), name.clone());
                let told = tokio::spawn(async move { identities.other_code(&of, found).await });
                told.await.unwrap_or(Ok(false))
            }
            false => Ok(false),
        };
        let paused = match told {
            Ok(true) => ", and is paused for it",
            Ok(false) => "",
            Err(error) => {
                tracing::warn!(identity = %name, %error, "Could not tell the server of other code");
                ""
            }
        };
        BeginError::OtherCode { name, expected, found, paused }
    }

    /// The identity that a text means, of those that this user may run here.
    async fn find(&self, text: &str, uid: u32) -> Result<SpiffeId, BeginError> {
        let may = self.0.parts.supply.runnable(uid).await;
        let end = format!("/{text}");
        let mut fitting = may.iter().filter(|id| id.as_str() == text || id.path().ends_with(&end));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Ok(one.clone()),
            (Some(one), Some(two)) => {
                Err(BeginError::Several { name: shown(text), several: format!("{one}, {two}") })
            }
            _ => {
                let may: Vec<_> = may.iter().take(10).map(ToString::to_string).collect();
                let may =
                    if may.is_empty() { String::new() } else { format!("; it may run {}", may.join(", ")) };
                Err(BeginError::NotPlaced { name: shown(text), uid, may })
            }
        }
    }

    fn end(&self, root: Process) {
        let callers = {
            let table = &mut *self.0.table.lock();
            table.runs.end(root, is_alive);
            self.0.any.store(!table.runs.is_empty(), Ordering::Release);
            self.0.parts.heard.want(table.runs.any_live());
            if let Some(desk) = table.desks.remove(&root) {
                desk.ended.cancel();
            }
            table.callers.remove(&root).unwrap_or_default()
        };
        self.0.roots.lock().ended(root);
        callers.iter().filter_map(Weak::upgrade).for_each(|caller| caller.close());
    }
}

/// Whether a run may go on, as the middle says.
struct Followed {
    feed: Box<dyn Feed>,
    /// Nothing matches any more.
    gone: bool,
}

impl Followed {
    fn new(feed: Box<dyn Feed>) -> Self {
        Self { feed, gone: false }
    }

    /// Waits for the first word; false if it may not.
    async fn begins(&mut self) -> bool {
        self.gone = self.feed.next().await.is_none_or(|update| update.matched == 0);
        !self.gone
    }
}

impl Standing for Followed {
    async fn is_over(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.over() => true,
            () = std::future::ready(()) => false,
        }
    }

    async fn over(&mut self) {
        while !self.gone {
            self.gone = self.feed.next().await.is_none_or(|update| update.matched == 0);
        }
    }
}

fn selectors(name: &SpiffeId, uid: u32) -> Option<SelectorSet> {
    SelectorSet::new([run_selector(name, uid).ok()?]).ok()
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}

impl BeginError {
    /// A stable word for the record.
    fn word(&self) -> &'static str {
        match self {
            Self::NotPlaced { .. } => "not_placed",
            Self::Several { .. } => "several",
            Self::NotInForce(_) => "not_in_force",
            Self::Away(_) => "server_away",
            Self::Task(_) => "task",
            Self::Refused(Refusal::Twice(_)) => "twice",
            Self::Refused(Refusal::Inside(_)) => "inside_a_run",
            Self::Refused(Refusal::Left) => "left_over",
            Self::Refused(Refusal::TooMany) => "too_many",
            Self::Refused(Refusal::Most(..)) => "most_runs",
            Self::OtherCode { .. } => "other_code",
            Self::Code(_) => "code",
            Self::Gone(_) => "gone",
            Self::Record(_) => "record",
        }
    }
}

/// One run. Dropping it ends it.
pub struct Running {
    runs: Runs,
    root: Process,
    uid: u32,
    desk: Arc<Desk>,
    identity: Governed,
    pub code: CodeDigest,
    followed: Followed,
    /// Its end is recorded.
    told: bool,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("instance", &self.desk.instance).finish_non_exhaustive()
    }
}

impl Running {
    #[must_use]
    pub fn identity(&self) -> &Governed {
        &self.identity
    }

    /// ID of this one live process tree.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.desk.instance
    }

    /// The rules that decide now.
    #[must_use]
    pub fn rules(&self) -> Option<Arc<Held>> {
        self.runs.0.parts.rules.current()
    }

    /// Folders of the agent's own that the user who runs this could open.
    #[must_use]
    pub fn closed(&self) -> Vec<String> {
        if self.uid != nix::unistd::geteuid().as_raw() {
            return Vec::new();
        }
        let folders = self.runs.0.parts.own_folders.iter();
        folders.filter_map(|folder| folder.to_str().map(str::to_owned)).collect()
    }

    /// What these files hold that gates are to add, for the supervisor of this run.
    pub fn secrets(&self, files: Vec<String>) -> impl Future<Output = BTreeMap<String, Secret>> + use<> {
        secrets::read(files, self.uid, self.runs.0.parts.gate_secrets.clone())
    }

    /// Resolves when the identity may not run here any more.
    pub async fn withdrawn(&mut self) {
        self.followed.over().await;
    }

    /// Decides, counts and records.
    pub async fn decide(&mut self, question: &Question) -> Answer {
        self.desk.decide(&self.runs.0.parts, question, &mut self.followed).await
    }

    /// Resolves when it was refused so often that it is to end.
    pub fn worn_out(&self) -> impl Future<Output = ()> + use<> {
        self.desk.worn_out.clone().cancelled_owned()
    }

    /// A gate found a tool that is not what it was.
    pub async fn tool_changed(&mut self, gate: &str, tool: &str) {
        let note = self.desk.note(NodeEvent::ToolChanged, shown(&format!("{gate}/{tool}")), Vec::new());
        let _ = self.runs.0.parts.scribe.write(note, Durability::Soon).await;
    }

    /// Ends it, and says why.
    pub async fn end(mut self, why: &'static str) {
        self.told = true;
        self.runs.end(self.root);
        let left = ("calls_left", self.desk.calls_left().to_string());
        let task = self.desk.note(NodeEvent::TaskEnd, self.desk.task.to_string(), vec![left]);
        let end = self.desk.note(
            NodeEvent::InstanceEnd,
            self.identity().name.to_string(),
            vec![("why", why.to_owned())],
        );
        let _ = self.runs.0.parts.scribe.write(task, Durability::Soon).await;
        let _ = self.runs.0.parts.scribe.write(end, Durability::Soon).await;
    }

    async fn record_start(&mut self, uid: u32, confined: bool) -> Result<(), String> {
        let identity = self.identity();
        let detail = vec![
            ("owner", identity.owner.clone()),
            ("kind", identity.kind.name().to_owned()),
            ("environment", identity.environment.name().to_owned()),
            ("uid", uid.to_string()),
            ("code", self.code.to_string()),
            ("confinement", if confined { "kernel" } else { "advisory" }.to_owned()),
        ];
        let start = self.desk.note(NodeEvent::InstanceStart, identity.name.to_string(), detail);
        let calls = ("calls", self.desk.calls_left().to_string());
        let task = self.desk.note(NodeEvent::TaskOpen, self.desk.task.to_string(), vec![calls]);
        let scribe = &self.runs.0.parts.scribe;
        scribe.write(start, Durability::Synced).await?;
        scribe.write(task, Durability::Soon).await?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.told {
            self.runs.end(self.root);
        }
    }
}
