//! Emergencies: what is asked of them.

use avouch_domain::{Emergency, EmergencyId, EmergencyStanding, SpiffeId, Timestamp};

use super::Registry;
use crate::plan::consent;

impl Registry {
    #[must_use]
    pub fn emergency(&self, id: &EmergencyId) -> Option<&Emergency> {
        self.emergencies.get(id)
    }

    /// All emergencies that are kept, ascending by ID.
    pub fn emergencies(&self) -> impl ExactSizeIterator<Item = &Emergency> {
        self.emergencies.all()
    }

    /// Those of one identity.
    pub fn emergencies_of<'a>(&'a self, identity: &'a SpiffeId) -> impl Iterator<Item = &'a Emergency> + 'a {
        self.emergencies.of(identity)
    }

    /// Those of one identity that are open.
    pub fn open_emergencies<'a>(
        &'a self,
        identity: &'a SpiffeId,
        wall: Timestamp,
    ) -> impl Iterator<Item = &'a Emergency> + 'a {
        let open =
            move |emergency: &&Emergency| self.emergency_standing(emergency, wall) == EmergencyStanding::Open;
        self.emergencies_of(identity).filter(open)
    }

    /// Where an emergency stands, for its identity and the people who opened it as they are now.
    #[must_use]
    pub fn emergency_standing(&self, emergency: &Emergency, wall: Timestamp) -> EmergencyStanding {
        emergency.standing(wall, consent::emergency_counts(self, emergency, wall))
    }

    /// The moment from which nothing comes of the oldest one.
    #[must_use]
    pub fn next_emergency_end(&self) -> Option<Timestamp> {
        self.emergencies.next_end()
    }

    /// Those of which nothing has come since `wall`, earliest first.
    pub fn emergencies_over(&self, wall: Timestamp) -> impl Iterator<Item = &Emergency> {
        self.emergencies.over(wall)
    }
}
