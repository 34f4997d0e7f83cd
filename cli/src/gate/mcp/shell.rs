//! The shell of the machine: moves lines between two streams, has calls decided, keeps the time.
//!
//! Neither side can make it hold more than its limits, and neither can stop the other from being heard by not reading.
//! Never looks into a line.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};

use super::proxy::{Effect, Proxy, Ticket};
use crate::gate::limits::{
    DECISION_TIME_MAX, DRAIN_TIME_MAX, LINE_MAX, LISTING_TIME_MAX, QUEUE_END, QUEUE_MAX, TASKS_MAX,
};
use crate::gate::lines::{Line, Lines};
use crate::gate::{Decided, Decider, Did, decided, noted};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The AI agent ended it.
    AiAgent,
    /// The tool server ended, or said something without end.
    ToolServer,
    /// The run ended.
    Stopped,
    /// What decides did not work.
    Decider,
}

/// What comes of a question.
enum Done {
    Decided(Ticket, Decided),
    May(Ticket, Vec<bool>),
    Noted,
}

/// Bytes that wait to be written, with where to.
struct Out<W> {
    to: W,
    bytes: VecDeque<u8>,
}

impl<W: AsyncWrite + Unpin> Out<W> {
    fn line(&mut self, line: &[u8]) {
        self.bytes.extend(line);
        self.bytes.push_back(b'\n');
    }

    fn room(&self) -> bool {
        self.bytes.len() < QUEUE_MAX
    }
}

struct Shell<D, C, S> {
    proxy: Proxy,
    decider: Arc<D>,
    client: Out<C>,
    server: Out<S>,
    tasks: JoinSet<Done>,
    listing: Option<(u64, Pin<Box<Sleep>>)>,
}

/// Runs the machine until one side ends or `stop` becomes true.
pub async fn run<D, CR, CW, SR, SW>(
    proxy: Proxy,
    decider: Arc<D>,
    (mut from_client, to_client): (Lines<CR>, CW),
    (from_server, to_server): (SR, SW),
    mut stop: watch::Receiver<bool>,
) -> End
where
    D: Decider,
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    SR: AsyncRead + Unpin,
    SW: AsyncWrite + Unpin,
{
    let mut from_server = Lines::new(from_server, LINE_MAX);
    from_client.limit(LINE_MAX);
    let mut shell = Shell {
        proxy,
        decider,
        client: Out { to: to_client, bytes: VecDeque::new() },
        server: Out { to: to_server, bytes: VecDeque::new() },
        tasks: JoinSet::new(),
        listing: None,
    };
    let mut drain: Option<Pin<Box<Sleep>>> = None;
    let end = loop {
        if drain.is_some() && shell.proxy.idle() && shell.client.bytes.is_empty() {
            break End::AiAgent;
        }
        // A tool server that asks and asks, and reads nothing.
        if shell.server.bytes.len() > QUEUE_END {
            break End::ToolServer;
        }
        let hear_server = shell.client.room() && shell.tasks.len() < TASKS_MAX;
        let hear_client = drain.is_none() && hear_server && shell.server.room();
        tokio::select! {
            line = from_client.next(), if hear_client => match line {
                Ok(Line::Whole(line)) => { let e = shell.proxy.from_client(&line); shell.act(e) }
                Ok(Line::TooLong) => { let e = shell.proxy.client_too_long(); shell.act(e) }
                Ok(Line::End) => drain = Some(Box::pin(sleep(DRAIN_TIME_MAX))),
                Err(_) => break End::AiAgent,
            },
            line = from_server.next(), if hear_server => match line {
                Ok(Line::Whole(line)) => { let e = shell.proxy.from_server(&line); shell.act(e) }
                Ok(Line::TooLong | Line::End) | Err(_) => break End::ToolServer,
            },
            written = shell.client.to.write_buf(&mut shell.client.bytes), if !shell.client.bytes.is_empty() => {
                if written.is_err() { break End::AiAgent }
            }
            written = shell.server.to.write_buf(&mut shell.server.bytes), if !shell.server.bytes.is_empty() => {
                // What it still has to say is read before it is given up.
                if written.is_err() { shell.server.bytes.clear() }
            }
            Some(done) = shell.tasks.join_next(), if !shell.tasks.is_empty() => match done {
                Ok(done) => shell.done(done),
                Err(_) => break End::Decider,
            },
            number = overdue(&mut shell.listing) => { let e = shell.proxy.overdue(number); shell.act(e) }
            () = drained(&mut drain) => break End::AiAgent,
            _ = stop.wait_for(|stop| *stop) => break End::Stopped,
        }
    };
    shell.close(end).await;
    end
}

async fn overdue(listing: &mut Option<(u64, Pin<Box<Sleep>>)>) -> u64 {
    let Some((number, time)) = listing else { return std::future::pending().await };
    time.await;
    let number = *number;
    *listing = None;
    number
}

async fn drained(drain: &mut Option<Pin<Box<Sleep>>>) {
    match drain {
        Some(time) => time.await,
        None => std::future::pending().await,
    }
}

impl<D, C, S> Shell<D, C, S>
where
    D: Decider,
    C: AsyncWrite + Unpin,
    S: AsyncWrite + Unpin,
{
    fn act(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let decider = self.decider.clone();
            match effect {
                Effect::ToClient(line) => self.client.line(&line),
                Effect::ToServer(line) => self.server.line(&line),
                Effect::Wait(number) => self.listing = Some((number, Box::pin(sleep(LISTING_TIME_MAX)))),
                Effect::Decide(ticket, ask) => drop(
                    self.tasks.spawn(async move { Done::Decided(ticket, decided(&*decider, ask).await) }),
                ),
                Effect::May(ticket, resources) => drop(self.tasks.spawn(async move {
                    let may = timeout(DECISION_TIME_MAX, decider.may(resources)).await;
                    Done::May(ticket, may.unwrap_or_default())
                })),
                Effect::Did(did) => decider.did(did),
                Effect::Note(event) => drop(self.tasks.spawn(async move {
                    noted(&*decider, event).await;
                    Done::Noted
                })),
            }
        }
    }

    fn done(&mut self, done: Done) {
        let effects = match done {
            Done::Decided(ticket, decided) => self.proxy.decided(ticket, decided),
            Done::May(ticket, may) => self.proxy.may(ticket, &may),
            Done::Noted => Vec::new(),
        };
        self.act(effects);
    }

    /// Tells whoever waits that nothing comes any more, as far as it still listens, and closes both.
    async fn close(mut self, end: End) {
        let mut effects = self.proxy.server_ended();
        if end == End::AiAgent {
            effects.retain(|effect| matches!(effect, Effect::Did(_)));
        }
        self.act(effects);
        let _ = timeout(DRAIN_TIME_MAX, async {
            while !self.client.bytes.is_empty()
                && self.client.to.write_buf(&mut self.client.bytes).await.is_ok()
            {}
            // A call that is allowed only now is not sent: nobody would hear what came of it.
            while let Some(done) = self.tasks.join_next().await {
                if let Ok(Done::Decided(_, Decided { due: Some(due), .. })) = done {
                    self.decider.did(Did::nothing(due));
                }
            }
        })
        .await;
        let _ = self.client.to.shutdown().await;
    }
}
