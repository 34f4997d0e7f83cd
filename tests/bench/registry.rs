//! Rows about entries, with a real server on SQLite that syncs every commit: CPU an entry, and what numbers cost.

use std::time::Instant;

use avouch_proto::entry_v1::entry_client::EntryClient;
use avouch_proto::watch_v1::watch_client::WatchClient;
use avouch_proto::{entry_v1, types, watch_v1};
use avouch_tests::bare_agent::BareAgent;
use avouch_tests::{Server, ServerOptions, entry, within};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::issuing::production;
use crate::process::{SAMPLES, cpu, cpu_each, memory, syncs};
use crate::report::{Bar, Report, Yard, median};

const PAGE: usize = 500;
/// Entries of a small installation, and of a large one.
const FEW: usize = 100;
pub const MANY: usize = 100_000;

/// Creates entries `from..to` below one parent; their IDs.
pub async fn create(server: &Server, parent: &str, from: usize, to: usize) -> Vec<String> {
    let one = |n| entry(parent, &format!("/e/{n}"), &[&format!("unix:path:/opt/{n}")]);
    let made = server.create_all((from..to).map(one).collect()).await;
    made.into_iter().map(|entry| entry.id).collect()
}

async fn create_one(client: &mut EntryClient<Channel>, parent: &str, name: &str) -> types::Entry {
    let made = entry(parent, name, &["unix:uid:7"]);
    let request = entry_v1::BatchCreateEntryRequest { entries: vec![made], output_mask: None };
    let answer = client.batch_create_entry(request).await.unwrap().into_inner();
    answer.results.into_iter().next().unwrap().entry.unwrap()
}

/// All rows of this part.
pub async fn run(report: &Report) {
    let mut server = Server::start_with(production()).await;
    let agent = BareAgent::join(&server).await;
    writes(report, &server, &agent).await;
    audited(report).await;
    watchers(report).await;
    create(&server, &agent.uri(), 20_000, MANY).await;
    many(report, (&server, &agent)).await;
    large(report, &mut server).await;
}

async fn writes(report: &Report, server: &Server, agent: &BareAgent) {
    let pid = server.daemon().pid();
    let parent = agent.uri();
    let mut ids = Vec::new();
    let mut from = 0;
    let batch = cpu_each(pid, 2 * PAGE, async || {
        ids.extend(create(server, &parent, from, from + 2 * PAGE).await);
        from += 2 * PAGE;
    });
    let batch = batch.await;
    report.plain("entries created, 500 a call, one parent: server CPU each", batch, "us", Bar::AtMost(30.0));
    ids.extend(create(server, &parent, from, 10_000).await);
    sync(report, server, agent).await;
    let mut listing = server.entries().await.max_decoding_message_size(usize::MAX);
    let list = cpu_each(pid, ids.len(), async || {
        let mut request = entry_v1::ListEntriesRequest { page_size: 500, ..Default::default() };
        loop {
            let page = listing.list_entries(request.clone()).await.unwrap().into_inner();
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
    });
    report.plain("ListEntries in pages of 500: server CPU an entry", list.await, "us", Bar::AtMost(3.0));
    singles(report, server, &parent).await;
    disk(report, server, &parent).await;
    let mut client = server.entries().await;
    let delete = cpu_each(pid, PAGE, async || {
        let request = entry_v1::BatchDeleteEntryRequest { ids: ids.split_off(ids.len() - PAGE) };
        client.batch_delete_entry(request).await.unwrap();
    });
    report.plain("BatchDeleteEntry of 500: server CPU an entry", delete.await, "us", Bar::AtMost(30.0));
}

async fn sync(report: &Report, server: &Server, agent: &BareAgent) {
    const CALLS: usize = 10;
    let mut client = EntryClient::new(agent.connect(server).await);
    let each = cpu_each(server.daemon().pid(), CALLS, async || {
        for _ in 0..CALLS {
            let asked = entry_v1::SyncAuthorizedEntriesRequest::default();
            // The stream stays open for the questions that are not asked: nothing is new.
            let asked = tokio_stream::once(asked).chain(tokio_stream::pending());
            let mut pages = client.sync_authorized_entries(asked).await.unwrap().into_inner();
            while pages.message().await.unwrap().unwrap().more {}
        }
    });
    let what = "SyncAuthorizedEntries of 10,000 known entries: server CPU";
    report.plain(what, each.await, "us", Bar::AtMost(1000.0));
}

async fn singles(report: &Report, server: &Server, parent: &str) {
    const CALLS: usize = 200;
    const CALLERS: usize = 16;
    let mut client = server.entries().await;
    let mut n = 0;
    let begun = Instant::now();
    let one = cpu_each(server.daemon().pid(), CALLS, async || {
        for _ in 0..CALLS {
            n += 1;
            create_one(&mut client, parent, &format!("/single/{n}")).await;
        }
    });
    let one = one.await;
    let rate = n as f64 / begun.elapsed().as_secs_f64();
    report.plain("entries created, one a call: server CPU each", one, "us", Bar::AtMost(200.0));
    let begun = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (mut client, parent) = (server.entries().await, parent.to_owned());
        callers.spawn(async move {
            for n in 0..CALLS {
                create_one(&mut client, &parent, &format!("/one-of-16/{caller}-{n}")).await;
            }
        });
    }
    callers.join_all().await;
    let many = (CALLERS * CALLS) as f64 / begun.elapsed().as_secs_f64();
    report.plain("rate of one caller of singles", rate, "/s", Bar::Free);
    report.plain("rate of 16 callers, in rates of one", many / rate, "x", Bar::AtLeast(3.0));
}

/// What a write costs the disk: one sync for a commit, and now and then two that fold the log into the database.
async fn disk(report: &Report, server: &Server, parent: &str) {
    const CALLS: usize = 200;
    const BATCHES: usize = 8;
    let pid = server.daemon().pid();
    let mut client = server.entries().await;
    let one = syncs(pid, async || {
        for n in 0..CALLS {
            create_one(&mut client, parent, &format!("/synced/{n}")).await;
        }
    });
    let many = syncs(pid, async || {
        create(server, parent, MANY, MANY + BATCHES * PAGE).await;
    });
    for (what, syncs, calls, bar) in [
        ("entries created, one a call: syncs of the disk a call", one.await, CALLS, 1.1),
        ("entries created, 500 a call: syncs of the disk a call", many.await, BATCHES, 3.0),
    ] {
        match syncs {
            Ok(syncs) => report.plain(what, syncs / calls as f64, "", Bar::AtMost(bar)),
            Err(reason) => report.absent(what, &reason),
        }
    }
}

/// The audit log must not slow writes down. In CPU time, which other work on the machine does not change; the two
/// servers take turns.
async fn audited(report: &Report) {
    const CALLS: usize = 200;
    let logged = ServerOptions { server: "audit_log_enabled = true".to_owned(), ..production() };
    let servers = [Server::start_with(production()).await, Server::start_with(logged).await];
    let mut ratios = Vec::new();
    for round in 0..SAMPLES {
        let mut spent = Vec::new();
        for server in &servers {
            let mut client = server.entries().await;
            let before = cpu(server.daemon().pid());
            for n in 0..CALLS {
                create_one(&mut client, "spiffe://example.org/node", &format!("/audited/{round}-{n}")).await;
            }
            spent.push((cpu(server.daemon().pid()) - before).as_secs_f64());
        }
        ratios.push(spent[0] / spent[1]);
    }
    let what = "entries created, one a call, audit log on: in rates without";
    report.plain(what, median(ratios), "x", Bar::AtLeast(0.9));
}

/// Changes in a sample.
const CHANGES: usize = 100;

/// Creates entries and deletes them, each by a call of its own.
async fn change(server: &Server, parent: &str) {
    let mut client = server.entries().await;
    for n in 0..CHANGES {
        let made = create_one(&mut client, parent, &format!("/change/{n}")).await;
        server.delete(&made.id).await;
    }
}

/// A change among a hundred thousand entries beside one among a hundred. The two servers take turns: the machine is not as fast
/// from one minute to the next. What a load of many leaves behind for a while (the registries of the last commits) is no part of it.
async fn many(report: &Report, large: (&Server, &BareAgent)) {
    const COMMITS_PER_CHANGE: usize = 2;
    let small = Server::start_with(production()).await;
    let agent = BareAgent::join(&small).await;
    create(&small, &agent.uri(), 0, FEW).await;
    let servers = [(&small, agent.uri()), (large.0, large.1.uri())];
    for (server, parent) in &servers {
        for _ in 0..=avouch_engine::history::KEPT / (CHANGES * COMMITS_PER_CHANGE) {
            change(server, parent).await;
        }
    }
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..SAMPLES {
        for ((server, parent), costs) in servers.iter().zip(&mut costs) {
            let before = cpu(server.daemon().pid());
            change(server, parent).await;
            let spent = cpu(server.daemon().pid()) - before;
            costs.push(spent.as_secs_f64() * 1e6 / CHANGES as f64);
        }
    }
    let [few, many] = costs.map(median);
    let yard = Yard { name: "with 100", value: few };
    report.ratio("one entry changed with 100,000 entries: server CPU", many, yard, Bar::AtMost(1.3));
}

/// A change concerns one agent of ten, then of a thousand that all follow.
async fn watchers(report: &Report) {
    let server = Server::start_with(production()).await;
    let mut streams = Vec::new();
    let mut costs = Vec::new();
    for number in [10, 1000] {
        while streams.len() < number {
            let agent = BareAgent::join(&server).await;
            let hello = watch_v1::Hello { version: 1, ..Default::default() };
            let hello = watch_v1::FollowRequest { step: Some(watch_v1::follow_request::Step::Hello(hello)) };
            let steps = tokio_stream::once(hello).chain(tokio_stream::pending());
            let mut client = WatchClient::new(agent.connect(&server).await);
            let mut frames = client.follow(steps).await.unwrap().into_inner();
            within("a welcome", frames.message()).await.unwrap();
            streams.push(frames);
        }
        let nobody = "spiffe://example.org/spire/agent/nobody";
        costs.push(cpu_each(server.daemon().pid(), CHANGES, async || change(&server, nobody).await).await);
    }
    let yard = Yard { name: "with 10 agents", value: costs[0] };
    let what = "one entry changed, 1,000 agents not concerned: server CPU";
    report.ratio(what, costs[1], yard, Bar::AtMost(1.3));
}

/// Memory, restart and rest of a server with a hundred thousand entries.
async fn large(report: &Report, server: &mut Server) {
    const REST_SECONDS: u64 = 20;
    let begun = Instant::now();
    server.stop().await;
    let stopped = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    server.restart().await;
    let started = begun.elapsed().as_secs_f64();
    report.plain("server with 100,000 entries stopped", stopped, "s", Bar::Free);
    report.plain("server with 100,000 entries restarted, ready", started, "s", Bar::AtMost(1.0));
    let pid = server.daemon().pid();
    let before = cpu(pid);
    tokio::time::sleep(std::time::Duration::from_secs(REST_SECONDS)).await;
    let share = (cpu(pid) - before).as_secs_f64() / REST_SECONDS as f64 * 100.0;
    report.plain("server with 100,000 entries at rest: CPU of a core", share, "%", Bar::AtMost(0.2));
    let memory = memory(pid);
    report.plain("server with 100,000 entries: resident", memory.resident, "MiB", Bar::AtMost(110.0));
}
