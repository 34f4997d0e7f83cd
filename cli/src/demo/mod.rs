//! `avouch demo`: a small company with people, AI agents and what they are after, and twelve scenes that are true.
//!
//! Everything is real: daemons, gates, servers, a git repository, and callers that run under `avouch run`. Each scene prints what
//! its records say, and each refusal is checked where it counts: at what would have been reached. A scene whose line does not
//! hold ends the demonstration with that line. Never touches anything outside its folder.

mod estate;
mod fault;
mod people;
mod scenes;
mod service;
mod setup;
mod teller;

use clap::Subcommand;

use crate::clock;
use crate::exit::{FAILED, FINDING};
use crate::out::{Colour, Out};
use crate::up::told_to_stop;
use estate::Estate;
use fault::Fault;
pub use service::Service;

const UP_EXAMPLES: &str = "Examples:
  avouch demo up            the twelve scenes, then everything stays for you to try, until Ctrl-C
  avouch demo up --once     exit code 0 once every line was seen to hold; nothing is left behind

It takes `git` and `curl`. Other people of the demonstration are other users: started by root it can be them; an ordinary
user can be them with `newuidmap` (Debian: uidmap) and a line in /etc/subuid. Exit codes: 0 every line holds, 3 one does not.";

/// The verbs of the demonstration.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(after_help = UP_EXAMPLES)]
    /// Start a small company of your own, and see twelve scenes of it
    Up {
        /// Stop after the last scene
        #[arg(long)]
        once: bool,
    },
    #[command(subcommand, hide = true)]
    /// A server of the demonstration, which starts it itself
    Serve(Service),
}

/// Does what a verb says; the exit code.
pub async fn run(command: Command, out: &mut Out) -> u8 {
    match command {
        Command::Up { once } => up(once, out).await,
        Command::Serve(service) => match service::serve(service).await {
            Ok(()) => 0,
            Err(e) => {
                out.complain(&format!("avouch demo serve: {e}\n"));
                FAILED
            }
        },
    }
}

async fn up(once: bool, out: &mut Out) -> u8 {
    let (mut estate, mut played) = (None, false);
    let outcome = tokio::select! {
        outcome = show(&mut estate, &mut played, once, out) => outcome,
        () = told_to_stop() => Ok(()),
    };
    let outcome = if played { outcome } else { outcome.and(Err(Fault::Interrupted)) };
    if let Some(estate) = estate {
        estate.close().await;
    }
    match outcome {
        Ok(()) => 0,
        Err(fault) => {
            out.complain(&format!("avouch demo: {fault}\n"));
            if fault.is_finding() { FINDING } else { FAILED }
        }
    }
}

async fn show(place: &mut Option<Estate>, played: &mut bool, once: bool, out: &mut Out) -> Result<(), Fault> {
    let begun = clock::now().mono;
    out.line(&out.paint(
        Colour::Bold,
        "A small company. Its AI agents are scripts without a model; all else is what it is.",
    ));
    let estate = place.insert(Estate::found()?);
    estate.start(out).await?;
    setup::furnish(estate, out).await?;
    let told = scenes::all(estate, out).await?;
    *played = true;
    let seconds = clock::now().mono.since(begun).as_secs_f64();
    out.line(&format!("\n{told} in {seconds:.0} s"));
    if once {
        return Ok(());
    }
    out.line(&estate.to_be_tried());
    std::future::pending().await
}
