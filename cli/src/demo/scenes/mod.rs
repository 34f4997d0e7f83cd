//! The twelve scenes, in order.
//!
//! Never prints a line that it has not seen: what is printed of a scene follows the check of it.

mod apart;
mod code;
mod proof;
mod secrets;
mod stops;
mod tools;
mod words;

use super::estate::Estate;
use super::fault::Fault;
use super::people::Others;
use crate::out::{Colour, Out};

/// Number, title, and whether it takes other people.
const SCENES: [(u8, &str, bool); 12] = [
    (1, "Twenty pushes to branches, and nobody is asked", false),
    (2, "A push to main asks", false),
    (3, "The owner's yes is refused; a second person's fits that commit only", true),
    (4, "A pipeline reads one secret once, and never holds the token", true),
    (5, "Telemetry: 1,000 rows of 50,000, for one purpose, for its time", true),
    (6, "Three of six tools; hidden and changed ones never reach the server", false),
    (7, "Support reads tickets; payroll stays closed, whatever was agreed to", false),
    (8, "What is of test acts nowhere else, and promotion copies no rights", true),
    (9, "The buyer drafts and orders nothing; its owner leaves, and it stops", true),
    (10, "An AI agent is refused the identity of a service of the same user", false),
    (11, "One of two is stopped, the other goes on; a frozen node is named", false),
    (12, "From a decision to a person, without a server; a flipped byte is found", false),
];

/// Where a scene is played.
struct Stage<'a> {
    estate: &'a Estate,
    out: &'a mut Out,
    /// What one scene leaves for another.
    left: Left,
}

/// What one scene leaves for another.
#[derive(Debug, Default)]
struct Left {
    /// The request that the push to main made, and the commit that it is about.
    waits: Option<(String, String)>,
    /// Number of a decision of the first run.
    decision: u64,
}

impl Stage<'_> {
    /// What was seen.
    fn seen(&mut self, text: &str) {
        self.out.line(&format!("      {text}"));
    }
}

/// All of them; says how many there were.
pub(super) async fn all(estate: &Estate, out: &mut Out) -> Result<String, Fault> {
    let mut stage = Stage { estate, out, left: Left::default() };
    let mut played = 0;
    for (number, title, with_others) in SCENES {
        let heading = format!("\n{number:>3}   {title}");
        stage.out.line(&stage.out.paint(Colour::Bold, &heading));
        if with_others && estate.others == Others::Nobody {
            stage.seen("not run: it takes another person, and this user can be nobody else here");
            continue;
        }
        play(number, &mut stage).await?;
        played += 1;
    }
    proof::nothing_is_left_open(&mut stage).await?;
    let left = SCENES.len() - played;
    Ok(match left {
        0 => format!("all {played} scenes hold"),
        _ => format!("{played} scenes hold, {left} were not run"),
    })
}

async fn play(number: u8, stage: &mut Stage<'_>) -> Result<(), Fault> {
    match number {
        1 => code::branches(stage).await,
        2 => code::main_asks(stage).await,
        3 => code::a_yes_fits_one_commit(stage).await,
        4 => secrets::one_secret_once(stage).await,
        5 => secrets::telemetry(stage).await,
        6 => tools::three_of_six(stage).await,
        7 => words::support(stage).await,
        8 => apart::environments(stage).await,
        9 => stops::the_owner_leaves(stage).await,
        10 => apart::worn(stage).await,
        11 => stops::one_of_two(stage).await,
        _ => proof::trace(stage).await,
    }
}
