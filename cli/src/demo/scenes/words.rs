//! Scene 7: what somebody agreed to opens nothing else.

use super::super::fault::{Fault, hold, there};
use super::super::people::Others;
use super::super::teller::{Who, word_from};
use super::Stage;
use super::secrets::CURL;

const RUN: [&str; 2] = ["--task", "invoice-9"];

pub(super) async fn support(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let estate = stage.estate;
    let reply = "curl -s -w ' %{http_code}\\n' -H 'content-type: application/json' \
                 -d '{\"text\":\"We look into invoice 9\"}' \"$TICKETS_URL/tickets/9/reply\"";
    let script = format!("{CURL} \"$TICKETS_URL/tickets/9\"; {reply}");
    let asked = estate.run(0, "support", &RUN, &script).await?;
    let mut lines = asked.said.out.lines();
    hold(lines.next() == Some("200"), "a ticket to be read", &asked)?;
    let (read, replied) = ("served GET /tickets/9", "served POST /tickets/9/reply");
    let seen = (estate.reached("tickets", read)?, estate.reached("tickets", replied)?);
    hold(seen == (1, 0), "tickets to have been read once", seen)?;
    let request = word_from(&asked.said.out, "req_").unwrap_or_default();
    hold(asked.said.out.trim_end().ends_with("403") && !request.is_empty(), "the reply to ask", &asked)?;
    let (who, name) = if estate.others == Others::Nobody { (Who::Ada, "Ada") } else { (Who::Ben, "Ben") };
    estate.good_by(who, &["ask", "yes", &request]).await?;
    let script = format!("{reply}; {CURL} \"$PAYROLL_URL/salaries\"");
    let agreed = estate.run(0, "support", &RUN, &script).await?;
    let mut lines = agreed.said.out.lines();
    let sent = lines.next().unwrap_or_default();
    hold(sent.ends_with("200"), "the reply that somebody agreed to", &agreed)?;
    hold(lines.next() == Some("403"), "payroll to be denied", &agreed)?;
    let replies = estate.reached("tickets", replied)?;
    hold(replies == 1, "one reply at tickets", replies)?;
    let reached = estate.reached("payroll", "")?;
    hold(reached == 0, "payroll to have seen nothing", reached)?;
    let decisions = estate.decisions(&agreed.instance, 2).await?;
    let last = there(decisions.last(), "a decision")?;
    hold(last.outcome == "deny", "a denial that no yes would lift", &decisions)?;
    let waits = estate.good(&["ask", "list", "--json"]).await?;
    hold(!waits.out.contains("payroll"), "no request about payroll", &waits)?;
    let can = estate.good(&["what-can", "support"]).await?;
    let guarded: Vec<_> = can.out.lines().skip(1).filter_map(|row| row.split_whitespace().next()).collect();
    let tickets = !guarded.is_empty() && guarded.iter().all(|resource| resource.starts_with("tickets/"));
    hold(tickets, "nothing but tickets to be within its reach", &can)?;
    stage.seen(&format!("`avouch what-can support` lists {}, and nothing else", guarded.join(", ")));
    stage.seen(&format!("a ticket: allow; the reply: ask, then allow, in the words that {name} agreed to"));
    stage.seen(&format!(
        "record {}: payroll, deny ({}); there is nobody to ask; payroll saw {reached}",
        last.number, last.reason
    ));
    Ok(())
}
