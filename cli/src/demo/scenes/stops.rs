//! Scenes 9 and 11: what stops, and what goes on.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::super::fault::{Fault, hold, there};
use super::super::teller::{COMES_WITHIN, Said, Who};
use super::Stage;
use super::secrets::CURL;

/// Answers that are seen before and after a stop.
const SOME: usize = 5;
/// Other answers than the wanted that are kept.
const OTHERS_MAX: usize = 16;
/// What curl says if nothing answered.
const NO_ANSWER: &str = "000";

/// A script that goes on, and the status of each of its requests.
struct GoesOn {
    run: Child,
    codes: Lines<BufReader<ChildStdout>>,
}

impl GoesOn {
    fn start(stage: &Stage<'_>, identity: &str, more: &[&str], request: &str) -> Result<Self, Fault> {
        let script = format!("while :; do {request}; done");
        let mut command = stage.estate.running(0, identity, more, &script);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let missing = |why| Fault::Command { name: "avouch run".to_owned(), why };
        let mut run = command.spawn().map_err(missing)?;
        let stdout = run.stdout.take().ok_or_else(|| Fault::expected("its output", "none"))?;
        Ok(Self { run, codes: BufReader::new(stdout).lines() })
    }

    /// Reads on until this status has come so often; what came before and was another.
    async fn until(&mut self, code: &str, many: usize) -> Result<Vec<String>, Fault> {
        let (mut others, mut seen) = (Vec::new(), 0);
        let reading = async {
            while seen < many {
                match self.codes.next_line().await {
                    Ok(Some(line)) if line == code => seen += 1,
                    Ok(Some(line)) if others.len() < OTHERS_MAX => others.push(line),
                    Ok(Some(_)) => {}
                    end => return Some(end),
                }
            }
            None
        };
        let end = tokio::time::timeout(COMES_WITHIN, reading).await;
        match end {
            Ok(None) => Ok(others),
            end => Err(Fault::expected(&format!("{many} times {code}"), (end, seen, others))),
        }
    }

    /// Asks it to end; its exit code.
    async fn end(mut self) -> Result<Option<i32>, Fault> {
        if let Some(pid) = self.run.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        self.ended().await
    }

    /// Waits for its end; its exit code.
    async fn ended(&mut self) -> Result<Option<i32>, Fault> {
        let ended = async {
            // It may wait for a place to write to.
            while let Ok(Some(_)) = self.codes.next_line().await {}
            self.run.wait().await
        };
        let late = |_| Fault::expected("the end of a run", "nothing");
        let ended = tokio::time::timeout(COMES_WITHIN, ended).await.map_err(late)?;
        let ended = ended.map_err(|why| Fault::Command { name: "avouch run".to_owned(), why })?;
        Ok(ended.code())
    }
}

/// What the one node said that may have run it.
fn confirmed(said: &Said) -> Result<String, Fault> {
    let line = said.out.lines().find(|line| line.contains("confirmed")).unwrap_or_default().trim();
    hold(line.contains(" 1 of 1 nodes"), "the node's confirmation", said)?;
    Ok(line.to_owned())
}

pub(super) async fn the_owner_leaves(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let draft = format!("{CURL} -d '{{}}' \"$PURCHASES_URL/drafts\"");
    let once = format!("{draft}; {CURL} -d '{{}}' \"$PURCHASES_URL/orders\"");
    let ran = estate
        .until("the buyer's place", async || {
            let ran = estate.run(0, "buyer", &["--task", "proc-88"], &once).await?;
            Ok((!ran.instance.is_empty()).then_some(ran))
        })
        .await?;
    hold(ran.said.out == "200\n403\n", "a draft and no order", &ran)?;
    let ordered = estate.reached("purchases", "served POST /orders")?;
    hold(ordered == 0, "no order at purchases", ordered)?;
    let decisions = estate.decisions(&ran.instance, 2).await?;
    let outcomes: Vec<_> = decisions.iter().map(|decision| decision.outcome.as_str()).collect();
    hold(outcomes == ["allow", "deny"], "an allow, and a denial that no yes would lift", &decisions)?;
    let drafted = estate.reached("purchases", "served POST /drafts")?;
    hold(drafted == 1, "one draft at purchases", drafted)?;
    let numbers: Vec<_> = decisions.iter().map(|decision| decision.number.to_string()).collect();
    stage.seen(&format!(
        "records {}: a draft, allow; an order, deny; purchases saw {ordered} orders",
        numbers.join(" and ")
    ));
    let mut buyer = GoesOn::start(stage, "buyer", &["--task", "proc-88"], &draft)?;
    buyer.until("200", SOME).await?;
    let left = estate.good(&["person", "leave", "Cyd Example", "--apply"]).await?;
    let confirmed = confirmed(&left)?;
    let drafts = estate.reached("purchases", "served POST /drafts")?;
    let ended = buyer.ended().await?;
    hold(ended == Some(143), "the buyer to be told to end", ended)?;
    let again = estate.run(0, "buyer", &[], "true").await?;
    hold(again.said.code == 2, "the buyer to run no more", &again)?;
    let after = estate.reached("purchases", "served POST /drafts")?;
    hold(after <= drafts + 1, "no draft that was begun after the answer", (drafts, after))?;
    stage.seen(&format!("Cyd leaves while it drafts: {confirmed}"));
    stage.seen("it was told to end, and runs no more until somebody takes it over");
    Ok(())
}

pub(super) async fn one_of_two(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let ask = format!("{CURL} \"$TICKETS_URL/tickets/9\"");
    let mut red = GoesOn::start(stage, "red", &["--keep-running"], &ask)?;
    let mut blue = GoesOn::start(stage, "blue", &[], &ask)?;
    for bot in [&mut red, &mut blue] {
        let others = bot.until("200", SOME).await?;
        hold(others.is_empty(), "tickets for both", &others)?;
    }
    let stopped = estate.good(&["stop", "red"]).await?;
    let confirmed = confirmed(&stopped)?;
    red.until(NO_ANSWER, SOME).await?;
    let errors = blue.until("200", 2 * SOME).await?;
    hold(errors.is_empty(), "no error of the other", &errors)?;
    red.end().await?;
    blue.end().await?;
    stage.seen(&format!(
        "red is stopped: {confirmed}; it goes on asking, and no gate answers; blue had 0 errors"
    ));
    let far = there(estate.agents.get(1), "a second node")?;
    let uid = nix::unistd::getuid().to_string();
    estate.good(&["identity", "place", "blue", "--node", &far.to_string(), "--uid", &uid]).await?;
    estate.freeze(1, true);
    let drilled = estate.ask(Who::Ada, &["stop", "blue", "--drill"]).await;
    estate.freeze(1, false);
    let drilled = drilled?;
    let silent =
        drilled.out.lines().find(|line| line.contains("silent")).unwrap_or_default().trim().to_owned();
    hold(drilled.code == 3 && silent.contains("until"), "the frozen node by name, with its end", &drilled)?;
    stage.seen(&format!("a drill with one node frozen: {silent}"));
    Ok(())
}
