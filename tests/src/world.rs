//! One server and one agent, shared by tests that only read.

use std::sync::{Arc, Weak};

use tokio::sync::Mutex;

use crate::{Agent, AgentOptions, Server, ServerOptions, entry, eventually};

/// A server, an agent and some entries.
pub struct World {
    // The agent goes first: it must not outlive its server in the log of a failed test.
    pub agent: Agent,
    pub server: Server,
}

static SHARED: Mutex<Weak<World>> = Mutex::const_new(Weak::new());

/// The selector that every process of this test's user has.
pub fn my_uid() -> String {
    format!("unix:uid:{}", nix::unistd::geteuid())
}

impl World {
    /// A fresh world without entries.
    pub async fn start() -> Self {
        Self::start_with(ServerOptions::default(), AgentOptions::default()).await
    }

    /// A fresh world without entries, with options.
    pub async fn start_with(server: ServerOptions, agent: AgentOptions) -> Self {
        let server = Server::start_with(server).await;
        let agent = Agent::start_with(&server, agent).await;
        Self { agent, server }
    }

    /// The world that tests share: two entries for this user, `/one` with hint `first` and a DNS name, and `/two`. It
    /// ends with its last user. Nobody may change it.
    pub async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(world) = shared.upgrade() {
            return world;
        }
        let world = Arc::new(Self::start().await);
        let mut one = entry(&world.agent.id, "/one", &[&my_uid()]);
        one.id = "entry-1".to_owned();
        one.hint = "first".to_owned();
        one.dns_names = vec!["one.example.org".to_owned(), "eins.example.org".to_owned()];
        world.server.create(one).await;
        let mut two = entry(&world.agent.id, "/two", &[&my_uid()]);
        two.id = "entry-2".to_owned();
        world.server.create(two).await;
        eventually("both entries at the agent", async || {
            let answer = world.agent.workload().await.fetch_x509().await.ok()?;
            (answer.svids.len() == 2).then_some(())
        })
        .await;
        *shared = Arc::downgrade(&world);
        world
    }

    /// Creates an entry for this user below the agent.
    pub async fn grant(&self, path: &str) -> avouch_proto::types::Entry {
        self.server.create(entry(&self.agent.id, path, &[&my_uid()])).await
    }
}
