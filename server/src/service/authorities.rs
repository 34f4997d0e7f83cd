//! Verbs on the authorities of this server.
//!
//! Never decides what an operator may do, and never shows another server's authorities.

use avouch_domain::{Authority, AuthorityKind};
use avouch_engine::plan::operator;

use super::{Order, OrderError, Services};

/// The authorities of one kind: the one that signs, and the one beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityPair {
    pub active: Authority,
    /// Prepared, or the one before.
    pub other: Option<Authority>,
}

impl Services {
    fn check_kind(&self, kind: AuthorityKind) -> Result<(), OrderError> {
        let disabled = kind == AuthorityKind::Jwt && self.settings().jwt_disabled;
        if disabled { Err(OrderError::JwtDisabled) } else { Ok(()) }
    }

    /// The authorities of this server.
    ///
    /// # Errors
    /// [`OrderError::JwtDisabled`], [`OrderError::NothingSigns`].
    pub fn authorities(&self, kind: AuthorityKind) -> Result<AuthorityPair, OrderError> {
        self.check_kind(kind)?;
        let registry = self.registry();
        let pair = operator::pair(&registry, kind, &self.0.holder);
        let active = pair.active.ok_or(OrderError::NothingSigns)?.clone();
        Ok(AuthorityPair { active, other: pair.other.cloned() })
    }

    /// Does what an operator wants with the authorities of this server. Gives the authority concerned as it is then;
    /// none for one that was revoked.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn order(
        &self,
        actor: &str,
        kind: AuthorityKind,
        order: Order,
    ) -> Result<Option<Authority>, OrderError> {
        self.check_kind(kind)?;
        self.0.orders.give(actor, kind, order).await
    }
}
