//! What operators want done with the authorities by hand: prepare, activate, taint, revoke.
//!
//! Never judges what is allowed (that is `engine::plan::operator`), and never answers before it is on disk.

use avouch_domain::{Authority, AuthorityId, AuthorityKind, SlotState};
use avouch_engine::plan::operator::{
    self, ActivateError, RevokeError, TaintError, make_room, may_activate, pair,
};
use avouch_engine::rotation::Input;
use tokio::sync::{mpsc, oneshot};

use super::Rotor;
use crate::clock::timed;
use crate::limits::ORDERS_WAITING;
use crate::metrics::Withdrawal;
use crate::writer::WriteError;

/// One thing an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A new authority beside the one that signs. One that is prepared already gives up its place.
    Prepare,
    /// The prepared authority signs as soon as every live agent knows it, or has been waited for.
    Activate(AuthorityId),
    /// The authority that signed before is trusted for nothing new.
    Taint(AuthorityId),
    /// A tainted authority leaves the bundle.
    Revoke(AuthorityId),
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("JWT functionality is disabled")]
    JwtDisabled,
    #[error("server is initializing")]
    NothingSigns,
    #[error(transparent)]
    Activate(ActivateError),
    #[error(transparent)]
    Taint(TaintError),
    #[error(transparent)]
    Revoke(RevokeError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{0}; it is tried again every few seconds")]
    Step(String),
}

/// The authority concerned, as it is then. A revoked one has left its slot: there is none.
type Answer = Result<Option<Authority>, OrderError>;

/// An order with its way back.
#[derive(Debug)]
pub(crate) struct Given {
    actor: String,
    kind: AuthorityKind,
    order: Order,
    reply: oneshot::Sender<Answer>,
}

/// Where a rotor hears orders.
pub(crate) type Orders = mpsc::Receiver<Given>;

/// Where orders are given. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct OrderQueue(mpsc::Sender<Given>);

/// Both ends of a queue of orders.
pub(crate) fn order_queue() -> (OrderQueue, Orders) {
    let (queue, orders) = mpsc::channel(ORDERS_WAITING);
    (OrderQueue(queue), orders)
}

impl OrderQueue {
    /// Gives an order and waits until it is carried out. One whose caller goes away is carried out all the same.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn give(&self, actor: &str, kind: AuthorityKind, order: Order) -> Answer {
        let (reply, answer) = oneshot::channel();
        let given = Given { actor: actor.to_owned(), kind, order, reply };
        self.0.try_send(given).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => WriteError::Busy,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped,
        })?;
        answer.await.unwrap_or(Err(OrderError::Write(WriteError::Stopped)))
    }
}

/// Somebody who waits until an authority signs.
pub(super) struct Waiting {
    kind: AuthorityKind,
    id: AuthorityId,
    reply: oneshot::Sender<Answer>,
}

impl Rotor {
    /// Carries an order out. An activation may still wait for agents then: [`Rotor::settle`] answers it.
    pub(super) async fn obey(&mut self, given: Given) {
        let Given { actor, kind, order, reply } = given;
        let answer = match order {
            Order::Prepare => self.prepare(kind, actor).await.map(Some),
            Order::Activate(id) => match self.begin_activation(kind, actor, &id).await {
                Ok(()) => return self.waiting.push(Waiting { kind, id, reply }),
                Err(error) => Err(error),
            },
            Order::Taint(id) => {
                let (tainted, elapsed) = timed(self.parts.clock, self.taint(kind, actor, id)).await;
                self.parts.metrics.withdrawn(kind, Withdrawal::Taint, tainted.is_ok(), elapsed);
                tainted.map(Some)
            }
            Order::Revoke(id) => {
                let (revoked, elapsed) = timed(self.parts.clock, self.revoke(kind, actor, id)).await;
                self.parts.metrics.withdrawn(kind, Withdrawal::Revoke, revoked.is_ok(), elapsed);
                revoked.map(|()| None)
            }
        };
        // The operator may have gone; what is done stays done.
        let _ = reply.send(answer);
    }

    async fn prepare(&mut self, kind: AuthorityKind, actor: String) -> Result<Authority, OrderError> {
        let (clock, holder) = (self.parts.clock, self.parts.holder.clone());
        if pair(&self.parts.writer.registry(), kind, &holder).active.is_none() {
            return Err(OrderError::NothingSigns);
        }
        let for_plan = holder.clone();
        let make_room = move |registry: &_| make_room(registry, clock().wall, kind, &for_plan);
        let gone = self.parts.writer.write(make_room).await?;
        self.actors.insert(kind, actor);
        if let Some(id) = gone {
            self.tell(kind, Input::Revoke(id)).await;
        }
        self.tell(kind, Input::Prepare).await;
        self.actors.remove(&kind);
        let registry = self.parts.writer.registry();
        let prepared = pair(&registry, kind, &holder).other.filter(|a| a.state == SlotState::Prepared);
        prepared.cloned().ok_or_else(|| {
            let trouble = self.parts.ca.trouble_of(kind);
            OrderError::Step(trouble.unwrap_or_else(|| "the authority is not made yet".to_owned()))
        })
    }

    async fn begin_activation(
        &mut self,
        kind: AuthorityKind,
        actor: String,
        id: &str,
    ) -> Result<(), OrderError> {
        let registry = self.parts.writer.registry();
        may_activate(pair(&registry, kind, &self.parts.holder), id).map_err(OrderError::Activate)?;
        if self.waiting.len() >= ORDERS_WAITING {
            return Err(WriteError::Busy.into());
        }
        self.actors.insert(kind, actor);
        // The turn that follows tells the machine what the agents know, and the authority signs if they all do.
        self.tell(kind, Input::Advance).await;
        Ok(())
    }

    /// Answers those whose authority signs by now, or never will under this order.
    pub(super) fn settle(&mut self) {
        let registry = self.parts.writer.registry();
        for Waiting { kind, id, reply } in std::mem::take(&mut self.waiting) {
            let pair = pair(&registry, kind, &self.parts.holder);
            let answer = match (pair.active, may_activate(pair, &id)) {
                (Some(active), _) if active.id == id => Ok(Some(active.clone())),
                (_, Err(error)) => Err(OrderError::Activate(error)),
                (_, Ok(_)) => match self.parts.ca.trouble_of(kind) {
                    Some(trouble) => Err(OrderError::Step(trouble)),
                    None => {
                        self.waiting.push(Waiting { kind, id, reply });
                        continue;
                    }
                },
            };
            let _ = reply.send(answer);
        }
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
        let waited: Vec<_> = self.waiting.iter().map(|waiting| waiting.kind).collect();
        self.actors.retain(|kind, _| waited.contains(kind));
    }

    async fn taint(
        &mut self,
        kind: AuthorityKind,
        actor: String,
        id: AuthorityId,
    ) -> Result<Authority, OrderError> {
        let (clock, holder) = (self.parts.clock, self.parts.holder.clone());
        let domain = self.parts.ca.0.trust_domain.clone();
        let tainted = self.parts.writer.write(move |registry| {
            operator::taint(registry, clock().wall, &actor, &domain, (kind, &holder), &id)
        });
        let tainted = tainted.await?.map_err(OrderError::Taint)?;
        say(kind, &tainted.id, "tainted");
        Ok(tainted)
    }

    async fn revoke(
        &mut self,
        kind: AuthorityKind,
        actor: String,
        id: AuthorityId,
    ) -> Result<(), OrderError> {
        let (clock, holder) = (self.parts.clock, self.parts.holder.clone());
        let (domain, revoked) = (self.parts.ca.0.trust_domain.clone(), id.clone());
        let done = self.parts.writer.write(move |registry| {
            operator::revoke(registry, clock().wall, &actor, &domain, (kind, &holder), &revoked)
        });
        done.await?.map_err(OrderError::Revoke)?;
        say(kind, &id, "revoked");
        self.tell(kind, Input::Revoke(id)).await;
        Ok(())
    }
}

fn say(kind: AuthorityKind, id: &AuthorityId, done: &str) {
    let what = match kind {
        AuthorityKind::X509 => "X.509",
        AuthorityKind::Jwt => "JWT",
    };
    tracing::info!(
        subsystem_name = "ca_manager",
        local_authority_id = %id,
        "{what} authority {done} successfully"
    );
}
