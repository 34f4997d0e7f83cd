//! Where one run is decided for, whoever of it asks: its gates, or its own code.
//!
//! Counts the calls of the task and the refusals, and records each decision before it is told. Asks for emergencies only where
//! one would help, and keeps none. Denies whatever is asked after the identity was stopped, whoever hears of the stop first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use avouch_attestors::process::ProcessKey;
use avouch_domain::limits::ALONE_SHORT;
use avouch_domain::{Code, NodeEvent, Note, Presented, SpiffeId, Tick};
use avouch_rules::Task;
use avouch_rules::limits::RESOURCE_ID_MAX;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::asking::{Asking, Given};
use super::deciding::{Answer, Moment, PROOF, Question, Wearer, unkept};
use super::receipts::Awaited;
use super::refused::Refused;
use super::{Followed, Parts};
use crate::limits::{EMERGENCY_AGAIN, EMERGENCY_TIME, REFUSALS_MAX};
use crate::upstream::{Emergency, Governed, Told};

/// Says whether the identity may still run here.
pub(super) trait Standing: Send {
    /// True if it may not, by all that is known at this moment.
    fn is_over(&mut self) -> impl Future<Output = bool> + Send;

    /// Resolves when it may not.
    fn over(&mut self) -> impl Future<Output = ()> + Send;
}

/// See the module.
pub(super) struct Desk {
    pub identity: SpiffeId,
    pub task: Code,
    /// ID of the live process tree.
    pub instance: String,
    /// IDs of resources; empty: any.
    pub tools: BTreeSet<String>,
    /// When the server was asked whether the run may begin.
    asked_at: Tick,
    wearer: Mutex<Wearer>,
    /// What the identity is for.
    purpose: String,
    calls: Mutex<u32>,
    refusals: Mutex<u32>,
    /// When the server was asked the last time that knew of no emergency.
    none_open: Mutex<Option<Tick>>,
    /// Identities that its processes would have outside of it.
    pub refused: Mutex<Refused>,
    /// It was refused so often that it is to end: each refusal is a record.
    pub worn_out: CancellationToken,
    /// The run is over.
    pub ended: CancellationToken,
    /// Whether the identity may run here, for whoever asks beside the supervisor's line.
    pub followed: tokio::sync::Mutex<Followed>,
    /// The program that began the run: no other asks for its gates.
    pub beginner: ProcessKey,
    /// One question of the gates at a time is decided, however many streams they had.
    pub gates_turn: Arc<Semaphore>,
    /// Decisions of which a gate is to say what came of them.
    pub awaited: Mutex<Awaited>,
}

/// What is known when a run begins.
pub(super) struct Opening {
    pub task: Code,
    pub instance: String,
    pub tools: BTreeSet<String>,
    pub calls: u32,
    pub asked_at: Tick,
    pub followed: Followed,
    pub beginner: ProcessKey,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Desk {
    pub(super) fn new(identity: Governed, opening: Opening) -> Self {
        let Opening { task, instance, tools, calls, asked_at, followed, beginner } = opening;
        Self {
            identity: identity.name.clone(),
            task,
            instance,
            tools,
            asked_at,
            purpose: identity.purpose.to_string(),
            wearer: Mutex::new(Wearer::new(identity)),
            calls: Mutex::new(calls),
            refusals: Mutex::new(0),
            none_open: Mutex::default(),
            refused: Mutex::default(),
            worn_out: CancellationToken::new(),
            ended: CancellationToken::new(),
            followed: followed.into(),
            beginner,
            gates_turn: Arc::new(Semaphore::new(1)),
            awaited: Mutex::default(),
        }
    }

    pub(super) fn calls_left(&self) -> u32 {
        *self.calls.lock()
    }

    /// Takes a call; gives how many there were.
    pub(super) fn take(&self) -> u32 {
        let mut calls = self.calls.lock();
        let had = *calls;
        *calls = had.saturating_sub(1);
        had
    }

    /// The call that was taken when there were `had` was none.
    pub(super) fn give_back(&self, had: u32) {
        if had > 0 {
            *self.calls.lock() += 1;
        }
    }

    /// Whether the task was opened for this resource.
    pub(super) fn has(&self, resource: &str) -> bool {
        self.tools.is_empty() || self.tools.contains(resource)
    }

    pub(super) fn note(
        &self,
        event: NodeEvent,
        subject: String,
        detail: Vec<(&'static str, String)>,
    ) -> Note {
        Note { event, actor: self.instance.clone(), subject, detail }
    }

    /// Decides, counts and records.
    pub(super) async fn decide(
        &self,
        parts: &Parts,
        question: &Question,
        standing: &mut impl Standing,
    ) -> Answer {
        if self.worn_out.is_cancelled() {
            // Each refusal is a record, and there are enough of them.
            return Answer::denied("worn_out", "this run was refused too often, and is over".to_owned());
        }
        let had = if question.what_if { self.calls_left() } else { self.take() };
        let mut answer = self.judged(parts, question, had, standing).await;
        if question.what_if {
            return answer;
        }
        if let Some(used) = &parts.used {
            used.note([&self.identity], (parts.clock)().wall);
        }
        // A longer name is that of no resource, and a record has only so much room.
        let resource = question.resource.chars().take(RESOURCE_ID_MAX).collect();
        let note = self.note(NodeEvent::Decision, resource, answer.detail(question));
        match parts.scribe.write(note, answer.durability()).await {
            Ok(record) => answer.record = record,
            Err(error) => {
                self.give_back(had);
                return Answer::unrecorded(&error);
            }
        }
        if !answer.goes_on {
            self.give_back(had);
            self.was_refused();
        }
        self.awaits(question, &answer);
        answer
    }

    fn was_refused(&self) {
        let mut refusals = self.refusals.lock();
        *refusals = refusals.saturating_add(1);
        if *refusals >= REFUSALS_MAX {
            self.worn_out.cancel();
        }
    }

    /// Decides by the rules of now; where only a yes or a grant is missing, the server is asked for it.
    async fn judged(
        &self,
        parts: &Parts,
        question: &Question,
        calls_left: u32,
        standing: &mut impl Standing,
    ) -> Answer {
        // What was stopped before the call began is stopped for it, whoever hears of it first.
        if standing.is_over().await {
            return over();
        }
        let alone = self.alone(parts);
        let task = Task { purpose: self.purpose.clone(), tools: self.tools.clone(), calls_left };
        let judge_by = |given: Given, open: &[Emergency]| {
            let rules = parts.rules.current();
            // Who gave something at this moment was heard at this moment.
            let heard = given != Given::default() || !open.is_empty();
            let (alone, now) = (if heard { Duration::ZERO } else { alone }, (parts.clock)());
            let moment = Moment { now: now.wall, alone, proof_age: parts.proof.age(now.mono) };
            let mut wearer = self.wearer.lock();
            wearer.hears(open);
            wearer.decide(rules.as_deref(), Some(&task), question, given, moment, &*parts.scribe)
        };
        let mut answer = judge_by(Given::default(), &[]);
        if question.what_if {
            return answer;
        }
        let Some(open) = self.lifting(parts, &answer, alone, standing).await else { return over() };
        let judge = |given: Given| judge_by(given, &open);
        if !open.is_empty() {
            answer = judge(Given::default());
            if standing.is_over().await {
                return over();
            }
        }
        if answer.reason == PROOF {
            parts.proof.want((parts.clock)().mono);
        }
        if answer.needs.nothing() {
            return answer;
        }
        if let Some(denied) = unkept(question, answer.needs, judge) {
            return denied;
        }
        if question.own_code && !answer.needs.yes.nobodys() {
            answer.text.push_str(", and nobody is asked for what a process says of itself; next: use a gate");
            return answer;
        }
        let asking = Asking {
            requests: &*parts.requests,
            identity: &self.identity,
            task: &self.task,
            question,
            presented: &Presented::default(),
        };
        // A stop does not wait until somebody has been asked.
        let stopped = tokio::select! {
            biased;
            () = standing.over() => true,
            () = asking.settle(&mut answer, judge) => false,
        };
        if stopped || standing.is_over().await {
            answer.unasked("the identity may not run here any more");
        }
        answer
    }

    /// The emergencies that may lift this denial; `None`: the identity was stopped meanwhile.
    async fn lifting(
        &self,
        parts: &Parts,
        answer: &Answer,
        alone: Duration,
        standing: &mut impl Standing,
    ) -> Option<Vec<Emergency>> {
        if !answer.may_be_lifted() || alone >= ALONE_SHORT {
            return Some(Vec::new());
        }
        // A stop does not wait until the server has answered.
        tokio::select! {
            biased;
            () = standing.over() => None,
            open = self.open_emergencies(parts) => Some(open),
        }
    }

    /// The emergencies that are open at the server at this moment. What can't be asked is not open. Where there is none, the
    /// server is left alone for a moment.
    async fn open_emergencies(&self, parts: &Parts) -> Vec<Emergency> {
        let now = (parts.clock)().mono;
        if self.none_open.lock().is_some_and(|at| now.since(at) < EMERGENCY_AGAIN) {
            return Vec::new();
        }
        let open = match timeout(EMERGENCY_TIME, parts.identities.identity(&self.identity)).await {
            Ok(Ok(Told { identity: Some(identity), .. })) => identity.emergencies,
            _ => Vec::new(),
        };
        *self.none_open.lock() = open.is_empty().then_some(now);
        open
    }

    /// How long the server has not been heard, less what it announced.
    fn alone(&self, parts: &Parts) -> Duration {
        let heard = parts.heard.at().map_or(self.asked_at, |at| at.max(self.asked_at));
        (parts.clock)().mono.since(heard)
    }
}

fn over() -> Answer {
    Answer::denied("not_in_force", "the identity may not run here any more".to_owned())
}
