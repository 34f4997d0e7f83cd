//! `docs/SCENARIOS.md`, generated: whole stories and attacks, step by step, and which tests show each.
//!
//! Never more than the tests do: how a step stands follows from the tests it names and from what it says is not yet so.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::{Outcome, files, proofs};

const SCENARIOS: &str = "docs/scenarios.toml";
const PAGE: &str = "docs/SCENARIOS.md";
/// What plays the scenes of the demonstration, and fails when one of them does not hold.
const DEMO: &str = "tests/e2e/demo.rs::all_twelve_scenes_hold_and_nothing_is_left";
/// Scenes of the demonstration.
const SCENES: u8 = 12;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenarios {
    /// The day on which every row was compared with the tests.
    judged: String,
    scenario: Vec<Scenario>,
    /// Each stands alone.
    abuse: Vec<Step>,
}

/// Steps that are numbered from 1 under one number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    id: String,
    title: String,
    step: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    id: String,
    says: String,
    /// The scene of `avouch demo up` in which it is seen.
    scene: Option<u8>,
    /// Tests that would fail if it were not so.
    #[serde(default)]
    proof: Vec<String>,
    /// What no test shows of it, and why; empty: all of it is shown.
    #[serde(default)]
    not_yet: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Shown,
    Partly,
    NotYet,
}

impl Standing {
    const ALL: [Self; 3] = [Self::Shown, Self::Partly, Self::NotYet];

    fn name(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::Partly => "partly",
            Self::NotYet => "not yet",
        }
    }
}

impl Step {
    /// The scene's test first.
    fn proofs(&self) -> impl Iterator<Item = &str> {
        self.scene.map(|_| DEMO).into_iter().chain(self.proof.iter().map(String::as_str))
    }

    /// `None`: it names neither a test nor what is not yet so, so nothing is known of it.
    fn standing(&self) -> Option<Standing> {
        match (self.proofs().next().is_none(), self.not_yet.is_empty()) {
            (false, true) => Some(Standing::Shown),
            (false, false) => Some(Standing::Partly),
            (true, false) => Some(Standing::NotYet),
            (true, true) => None,
        }
    }
}

/// Writes the page, or with `check` fails when it is not fresh; either way fails on a step that does not hold.
pub fn run(check: bool) -> Outcome {
    let scenarios: Scenarios =
        toml::from_str(&files::read(SCENARIOS)?).map_err(|e| format!("cannot read {SCENARIOS}: {e}"))?;
    let faults = faults(&scenarios, &proofs::lives);
    if !faults.is_empty() {
        return Err(format!("scenarios:\n{}", faults.join("\n")));
    }
    files::write_or_compare(PAGE, &page(&scenarios), check, "cargo xtask claims")?;
    if check {
        let steps: usize = scenarios.scenario.iter().map(|scenario| scenario.step.len()).sum();
        println!("scenarios: {steps} steps and {} attacks, page fresh", scenarios.abuse.len());
    }
    Ok(())
}

/// Everything that is wrong with them; `lives` tells whether there is a test of that ID.
fn faults(scenarios: &Scenarios, lives: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, scenario) in (1..).zip(&scenarios.scenario) {
        faults.extend(misnumbered(&scenario.id, &format!("S{number}")));
        for (step_number, step) in (1..).zip(&scenario.step) {
            faults.extend(misnumbered(&step.id, &format!("S{number}.{step_number}")));
            faults.extend(faults_of(step, lives));
        }
    }
    for (number, attack) in (1..).zip(&scenarios.abuse) {
        faults.extend(misnumbered(&attack.id, &format!("X{number}")));
        faults.extend(faults_of(attack, lives));
    }
    faults
}

/// Without a gap, so that no step is left out in silence.
fn misnumbered(id: &str, expected: &str) -> Option<String> {
    (id != expected)
        .then(|| format!("{SCENARIOS}: expected {expected}, came \"{id}\"; number them without a gap"))
}

fn faults_of(step: &Step, lives: &dyn Fn(&str) -> bool) -> Vec<String> {
    let place = format!("{SCENARIOS}: {}", step.id);
    let mut faults = Vec::new();
    if step.standing().is_none() {
        faults
            .push(format!("{place} names no test and nothing that is not yet so; add `proof` or `not_yet`"));
    }
    if let Some(scene) = step.scene.filter(|scene| !(1..=SCENES).contains(scene)) {
        faults.push(format!("{place} names scene {scene}, expected one of 1 to {SCENES}"));
    }
    let mut seen = BTreeSet::new();
    for proof in step.proofs() {
        if !seen.insert(proof) {
            faults.push(format!("{place} names `{proof}` twice; take one out"));
        } else if !lives(proof) {
            faults.push(format!(
                "{place}: there is no test `{proof}`; name one that is there as `path/file.rs::test`, or say in \
                 `not_yet` what no test shows"
            ));
        }
    }
    faults
}

fn page(scenarios: &Scenarios) -> String {
    let mut out = format!(
        "# Scenarios\n\nGenerated by `cargo xtask claims` from `docs/scenarios.toml`; do not edit.\n\n\
         Whole stories of identities that act by themselves (S), step by step, and attacks on them (X), each with the tests\n\
         that show it:\n\n\
         - **shown**: in the tests that are named a gate let a real process through or stopped it, and what the thing behind\n  \
         the gate counted agrees. Where a step is about SVIDs, the Workload API is the gate, and what comes to the process\n  \
         is counted. An attack is shown where the part that refuses it is tested.\n\
         - **partly**: as far as the tests go, and what they do not show is said;\n\
         - **not yet**: no test shows it, and why.\n\n\
         A scene is one of `avouch demo up`, played and checked by `{DEMO}`.\n\
         Tests with several people need root, and say so when they were not run. Every test that is named exists: CI fails\n\
         on one that does not. Compared with the tests on {}.\n\n",
        scenarios.judged
    );
    out.push_str(&counts(scenarios));
    for scenario in &scenarios.scenario {
        table(&mut out, &format!("{}. {}", scenario.id, scenario.title), &scenario.step);
    }
    table(&mut out, "X. Attacks", &scenarios.abuse);
    out
}

fn table(out: &mut String, title: &str, steps: &[Step]) {
    let _ = writeln!(
        out,
        "\n## {title}\n\n| | Step | Standing | Shown by, or what is not yet so |\n|---|---|---|---|"
    );
    for step in steps {
        let standing = step.standing().map_or("", Standing::name);
        let _ = writeln!(out, "| {} | {} | {standing} | {} |", step.id, files::cell(&step.says), last(step));
    }
}

/// How many steps stand how, by scenario and in all.
fn counts(scenarios: &Scenarios) -> String {
    let mut out = String::from("| | Shown | Partly | Not yet | All |\n|---|---|---|---|---|\n");
    let of = |steps: &[Step]| {
        Standing::ALL.map(|standing| steps.iter().filter(|step| step.standing() == Some(standing)).count())
    };
    let row = |name: &str, [shown, partly, not_yet]: [usize; 3]| {
        format!("| {name} | {shown} | {partly} | {not_yet} | {} |\n", shown + partly + not_yet)
    };
    let mut all = [0; 3];
    let named = scenarios
        .scenario
        .iter()
        .map(|scenario| (format!("{}. {}", scenario.id, files::cell(&scenario.title)), &scenario.step));
    for (name, steps) in named.chain([("X. Attacks".to_owned(), &scenarios.abuse)]) {
        let counted = of(steps);
        for (sum, more) in all.iter_mut().zip(counted) {
            *sum += more;
        }
        out.push_str(&row(&name, counted));
    }
    out + &row("All", all)
}

/// Where a step is shown, and what is not yet so.
fn last(step: &Step) -> String {
    let scene = step.scene.map(|scene| format!("scene {scene}"));
    let tests = step.proof.iter().map(|proof| format!("`{proof}`"));
    let shown: Vec<_> = scene.into_iter().chain(tests).collect();
    let not_yet = match step.not_yet.is_empty() {
        true => None,
        false => Some(format!("Not yet: {}", files::cell(&step.not_yet))),
    };
    let shown = (!shown.is_empty()).then(|| shown.join(", "));
    shown.into_iter().chain(not_yet).collect::<Vec<_>>().join(". ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenarios(steps: &str, attacks: &str) -> Scenarios {
        toml::from_str(&format!(
            "judged = \"2026-01-31\"\nabuse = [{attacks}]\n[[scenario]]\nid = \"S1\"\ntitle = \"One\"\nstep = [{steps}]"
        ))
        .unwrap()
    }

    fn found(steps: &str) -> Vec<String> {
        faults(&scenarios(steps, ""), &|proof| proof == "a.rs::good" || proof == DEMO)
    }

    #[test]
    fn how_a_step_stands_follows_from_what_it_names() {
        let scenarios = scenarios(
            r#"{ id = "S1.1", says = "a|b", scene = 2, proof = ["a.rs::good"] },
               { id = "S1.2", says = "c", proof = ["a.rs::good"], not_yet = "half" },
               { id = "S1.3", says = "d", not_yet = "all" }"#,
            r#"{ id = "X1", says = "e", scene = 12 }"#,
        );
        assert!(faults(&scenarios, &|_| true).is_empty());
        let page = page(&scenarios);
        for line in [
            "| S1. One | 1 | 1 | 1 | 3 |",
            "| X. Attacks | 1 | 0 | 0 | 1 |",
            "| All | 2 | 1 | 1 | 4 |",
            "| S1.1 | a\\|b | shown | scene 2, `a.rs::good` |",
            "| S1.2 | c | partly | `a.rs::good`. Not yet: half |",
            "| S1.3 | d | not yet | Not yet: all |",
            "| X1 | e | shown | scene 12 |",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_test_that_is_not_there_or_stands_twice_and_a_scene_that_is_none_are_found() {
        let wrong = found(r#"{ id = "S1.1", says = "a", proof = ["a.rs::bad"] }"#);
        assert!(wrong.len() == 1 && wrong[0].contains("there is no test `a.rs::bad`"), "{wrong:?}");
        let twice = found(r#"{ id = "S1.1", says = "a", proof = ["a.rs::good", "a.rs::good"] }"#);
        assert!(twice.len() == 1 && twice[0].contains("twice"), "{twice:?}");
        let scene = found(r#"{ id = "S1.1", says = "a", scene = 13 }"#);
        assert!(scene.len() == 1 && scene[0].contains("expected one of 1 to 12"), "{scene:?}");
    }

    #[test]
    fn a_step_of_which_nothing_is_known_and_one_that_is_left_out_are_found() {
        let nothing = found(r#"{ id = "S1.1", says = "a" }"#);
        assert!(nothing.len() == 1 && nothing[0].contains("names no test"), "{nothing:?}");
        let gap = found(r#"{ id = "S1.2", says = "a", not_yet = "all" }"#);
        assert!(gap.len() == 1 && gap[0].contains("expected S1.1, came \"S1.2\""), "{gap:?}");
        let attack = faults(&scenarios("", r#"{ id = "X2", says = "a", not_yet = "all" }"#), &|_| true);
        assert!(attack.len() == 1 && attack[0].contains("expected X1, came \"X2\""), "{attack:?}");
    }
}
