//! Scenes 1 to 3: an AI agent pushes to a repository whose hook asks.

use super::super::fault::{Fault, hold, there};
use super::super::teller::{Said, Who, word_from};
use super::Stage;

/// Branches that are pushed.
const BRANCHES: usize = 20;
pub(super) const RUN: [&str; 2] = ["--task", "fix-4711"];

/// A token for a repository, as git shows it.
pub(super) fn token(repository: &str) -> String {
    format!(
        "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=push.pushOption \
         GIT_CONFIG_VALUE_0=\"$(avouch task token git/{repository})\""
    )
}

pub(super) async fn branches(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let token = token("pay");
    let script = format!(
        "set -e; git clone -q \"$GIT_URL/pay.git\"; cd pay; {token}
         for n in $(seq {BRANCHES}); do
           git commit -q --allow-empty -m \"Fix $n\"; git push -q origin HEAD:refs/heads/fix-$n
         done"
    );
    let ran = stage.estate.run(0, "coder", &RUN, &script).await?;
    hold(ran.said.code == 0, "twenty pushes", &ran)?;
    let decisions = stage.estate.decisions(&ran.instance, BRANCHES).await?;
    let allowed = decisions.iter().filter(|decision| decision.outcome == "allow").count();
    hold((allowed, decisions.len()) == (BRANCHES, BRANCHES), "twenty times allow", &decisions)?;
    let there = bare(stage, &["branch", "--list", "fix-*"]).await?.out.lines().count();
    hold(there == BRANCHES, "twenty branches in the repository", there)?;
    let (first, last) = (decisions.first(), decisions.last());
    let numbers = (first.map_or(0, |d| d.number), last.map_or(0, |d| d.number));
    stage.left.decision = numbers.1;
    stage.seen(&format!("records {} to {}: {BRANCHES} times allow; nobody was asked", numbers.0, numbers.1));
    stage.seen(&format!("the repository has {there} branches more"));
    if ran.said.err.contains("advisory") {
        stage.seen(
            "advisory: this kernel, or this user, cannot keep an AI agent from reaching around its gates",
        );
    }
    Ok(())
}

pub(super) async fn main_asks(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let (before, token) = (main(stage).await?, token("pay"));
    let script = format!(
        "cd pay; git checkout -q -B work origin/main; git commit -q --allow-empty -m 'Add up the total'; {token}
         git rev-parse HEAD; git push -q origin HEAD:main"
    );
    let ran = stage.estate.run(0, "coder", &RUN, &script).await?;
    hold(ran.said.code != 0 && ran.said.err.contains("needs the yes"), "the push to be refused", &ran)?;
    let decisions = stage.estate.decisions(&ran.instance, 1).await?;
    hold(decisions.iter().all(|decision| decision.outcome == "step_up"), "one ask", &decisions)?;
    let request = word_from(&ran.said.err, "req_").unwrap_or_default();
    let commit = ran.said.out.trim().to_owned();
    let after = main(stage).await?;
    hold(before == after, "main as it was", &after)?;
    let number = decisions.first().map_or(0, |decision| decision.number);
    stage.seen(&format!("record {number}: ask; {request} waits for a person"));
    stage.seen(&format!("main is at {}, as before", short(&after)));
    stage.left.waits = Some((request, commit));
    Ok(())
}

pub(super) async fn a_yes_fits_one_commit(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let (request, commit) = there(stage.left.waits.clone(), "a request that waits")?;
    let own = stage.estate.ask(Who::Ada, &["ask", "yes", &request]).await?;
    hold(own.code == 2, "the owner's yes to be refused", &own)?;
    stage.seen("Ada owns the AI agent: her yes is refused");
    let shown = stage.estate.good_by(Who::Ben, &["ask", "show", &request]).await?;
    hold(shown.out.contains(&commit), "the commit in what Ben sees", &shown)?;
    stage.estate.good_by(Who::Ben, &["ask", "yes", &request]).await?;
    stage.seen(&format!("Ben sees commit {} as it would be pushed, and says yes", short(&commit)));
    let token = token("pay");
    let other = format!(
        "cd pay; git checkout -q -B other origin/main; git commit -q --allow-empty -m 'And something else'; {token}
         git push -q origin HEAD:main"
    );
    let other = stage.estate.run(0, "coder", &RUN, &other).await?;
    hold(
        other.said.code != 0 && other.said.err.contains("req_"),
        "another commit to be asked about anew",
        &other,
    )?;
    hold(!other.said.err.contains(&request), "another request", &other)?;
    let this =
        stage.estate.run(0, "coder", &RUN, &format!("cd pay; {token}; git push -q origin work:main")).await?;
    hold(this.said.code == 0, "the commit that Ben saw to be pushed", &this)?;
    let after = main(stage).await?;
    hold(after == commit, "main at the commit that Ben saw", &after)?;
    let (asked, allowed) =
        (stage.estate.decisions(&other.instance, 1).await?, stage.estate.decisions(&this.instance, 1).await?);
    let (asked, allowed) = (there(asked.last(), "a decision")?, there(allowed.last(), "a decision")?);
    hold(
        (asked.outcome.as_str(), allowed.outcome.as_str()) == ("step_up", "allow"),
        "an ask and an allow",
        (asked, allowed),
    )?;
    stage.seen(&format!(
        "record {}: another commit, ask; record {}: this one, allow",
        asked.number, allowed.number
    ));
    stage.seen(&format!("main is at {}", short(&after)));
    Ok(())
}

async fn bare(stage: &Stage<'_>, args: &[&str]) -> Result<Said, Fault> {
    in_bare(stage, "pay", args).await
}

/// A command of git in a repository as the git server keeps it.
pub(super) async fn in_bare(stage: &Stage<'_>, name: &str, args: &[&str]) -> Result<Said, Fault> {
    let bare = stage.estate.bare(name);
    let place = ["-C", &bare.to_string_lossy()];
    stage.estate.program("git", &[&place, args].concat()).await
}

/// The commit that main is at.
async fn main(stage: &Stage<'_>) -> Result<String, Fault> {
    Ok(bare(stage, &["rev-parse", "main"]).await?.out.trim().to_owned())
}

fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}
