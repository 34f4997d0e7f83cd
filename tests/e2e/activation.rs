//! The workload socket kept by a service manager: an agent that restarts refuses no connection.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::workload::Workload;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, entry, within};
use tonic::Code;

/// What a service manager does: descriptor 3 is the listener, and the variables name the process that may take it.
const ACTIVATE: &str = r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#;

fn activate(agent: &Agent, listener: &UnixListener) -> Daemon {
    let mut command = Command::new("sh");
    command.args(["-c", ACTIVATE, "sh"]).arg(binary("avouch-agent"));
    command.args(["run", "-config"]).arg(&agent.config);
    let passed = OwnedFd::from(listener.try_clone().unwrap());
    Daemon::spawn_with("agent", &mut command, Stdio::from(passed))
}

/// Connects at once, whoever listens by then, and asks until the agent is in sync.
async fn ask(agent: &Agent) -> String {
    let mut workload = within("a connection", Workload::connect(&agent.socket)).await.unwrap();
    within("an identity", async {
        loop {
            match workload.fetch_x509().await {
                Ok(answer) => return answer.svids[0].spiffe_id.clone(),
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn callers_between_two_lives_of_an_agent_are_served_by_the_second() {
    let server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
    std::fs::create_dir(agent.socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(&agent.socket).unwrap();
    for life in ["first", "second"] {
        // The question comes first: nobody listens yet but the kernel.
        let (answer, daemon) = tokio::join!(ask(&agent), async { activate(&agent, &listener) });
        assert_eq!(answer, "spiffe://example.org/web", "{life}");
        daemon.line("Took over a socket from the service manager").await;
        assert!(daemon.stop().await.success());
        assert!(agent.socket.exists(), "the socket is the service manager's");
    }
}
