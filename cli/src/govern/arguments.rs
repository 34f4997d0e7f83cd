//! The verbs of people, identities and records, as they are typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::emergencies::{EMERGENCY, EmergencyVerb};
use super::findings::{FINDING, FindingVerb};

const INIT: &str = "Examples:
  avouch init 'Ada Example'

Run it as the user who owns the server's data; it works once. Exit codes: 0 done, 2 another user, 1 there are people.";
const PERSON: &str = "Examples:
  avouch person add 'Ben Example' --uid 1001 --security
  avouch person add 'Eve Example' --issuer https://idp.example.org --subject 248289761001
  avouch person sign-in --issuer https://idp.example.org --subject 973500412
  avouch person list
  avouch person approve per_0af3
  avouch person leave 'Ben Example'
  avouch person leave 'Ben Example' --apply";
const IDENTITY: &str = "Examples:
  avouch identity new coder --kind ai-agent --preset coding-agent --env test --purpose fix-bugs --ends 30d
  avouch identity place coder
  avouch identity list --standing active
  avouch identity show coder
  avouch identity set coder --ends 60d
  avouch identity set coder --code 5f0c… --runs 1";
const PAUSE: &str = "Examples:
  avouch pause coder

Its SVIDs are withdrawn on every connected node before you can type the next command; `avouch resume` brings it back.";
const RESUME: &str = "Examples:
  avouch resume coder";
const STOP: &str = "Examples:
  avouch stop coder --drill
  avouch stop coder

Final: the name can't be used again. `avouch pause` is for a stop that comes back. It answers when the nodes that follow have
confirmed, at most a second later, and names those that have not. Exit codes: 0 done, 3 a node was silent in a drill.";
const FOUND: &str = "Examples:
  avouch found";
const ADOPT: &str = "Examples:
  avouch adopt --path /billing/ --kind service --env prod --purpose billing --ends 365d
  avouch adopt --path /billing/ --kind service --env prod --purpose billing --ends 365d --owner 'Ada Example' --apply

Without --apply it says what would be adopted and adopts nothing.";
const ASK: &str = "Examples:
  avouch ask list
  avouch ask show req_3f9a0c51d2e7
  avouch ask yes req_3f9a0c51d2e7
  avouch ask no req_3f9a0c51d2e7

A yes fits exactly what was shown, is used once, and lasts a quarter of an hour. Exit codes: 0 done, 2 the yes is somebody
else's, 3 the server shows another text than it keeps, 5 another yes is still missing.";
const GRANT: &str = "Examples:
  avouch grant give deploy vault/deploy-key
  avouch grant give coder telemetry/requests --action telemetry.read --uses 20 --for 2h
  avouch grant give buyer orders/drafts --uses 500 --for 30d --case PROC-88
  avouch grant list
  avouch grant end gr_3f9a0c51d2e7
  avouch grant end --case PROC-88

What waits for a grant is a rule with @grant. Whoever owns the identity gives it nothing, unless in test while nobody else
is there. A pause, another owner, or the leaving of whoever gave it ends it. Exit codes: 0 done, 2 it is somebody else's.";
const AUDIT: &str = "Examples:
  avouch audit export > records.jsonl
  avouch audit export --source server
  avouch audit key > records.pem
  avouch audit verify
  avouch audit verify --offline records.jsonl --key records.pem";
const ARGUMENT: &str = "Examples:
  avouch audit argument --salt /var/lib/avouch-agent/salts/2026-11-30 path=pay/keys.toml
  avouch audit export | grep \"$(avouch audit argument --salt salts/2026-11-30 branch=main)\"

The salt stays on its node, where root and the agent's user may read it. Once it is erased, after 90 days or by hand, nobody can
tell any more what was called.";
const MATCH: &str = "Examples:
  avouch audit match
  avouch audit match --offline records.jsonl --key records.pem

  matched                      what the gate sent has the hash that was agreed to
  done otherwise               it sent something else
  done without a yes           it names a yes or a grant that nobody gave, or uses one twice
  agreed, no receipt (hook)    it was used, and no gate says what it did: a hook decides before anything is done
  not used                     it was agreed to, and nothing was sent

The log is verified first. Exit codes: 0 nothing was found, 3 something was done otherwise or without a yes, or the log does not
hold.";
const RULES: &str = "Examples:
  avouch rules publish rules --note 'telemetry: 1,000 rows at most'
  avouch rules approve 7
  avouch rules list
  avouch rules show 6 --out rules-6
  avouch rules withdraw 7

Asks the server. Exit codes: 0 done, 2 denied, 3 something is wrong with the folder, 4 nobody answers, 5 it waits for
another security person's yes.";
const TRACE: &str = "Examples:
  avouch trace ins_c5e9fdc5679449d3b9449b103ff94892
  avouch trace 12 --source spiffe://example.org/spire/agent/x509pop/0f3a
  avouch trace 12 --offline records.jsonl --key records.pem

The log is verified first. Exit codes: 0 every hop is proven, 3 one is unknown or the log does not hold.";
const CONSOLE: &str = "\
Examples:
  avouch console     open the link that it prints in a browser on this machine

The link is yours: another user's browser can't use it, save root's. Don't make it an argument of a command, where all users
see it.
A server whose people sign in at a provider gives no link: it says where its pages are.
The server serves the pages if its configuration says where: console_address = \"127.0.0.1:8090\".
Say yes to a request within five minutes of signing in; a new link signs you in anew.";

const VERIFY: &str = "Examples:
  avouch verify --require owner,end,stop

What somebody accepts until a day (`avouch finding accept`) is listed apart and does not count until then.
Exit codes: 0 all hold, 3 some do not (they are listed).";

/// See the module.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(after_help = INIT)]
    /// Make the first person: you
    Init {
        /// What people see
        name: String,
    },
    #[command(subcommand, disable_help_subcommand = true, after_help = PERSON)]
    /// People: who may own identities, say yes, and stop things
    Person(PersonVerb),
    #[command(subcommand, disable_help_subcommand = true, after_help = IDENTITY)]
    /// Identities: what runs, who answers for it, until when
    Identity(IdentityVerb),
    #[command(after_help = PAUSE)]
    /// Pause an identity everywhere, now
    Pause {
        /// Its SPIFFE ID, or the last part of it
        name: String,
    },
    #[command(after_help = RESUME)]
    /// Let a paused identity go on
    Resume {
        /// Its SPIFFE ID, or the last part of it
        name: String,
    },
    #[command(after_help = STOP)]
    /// Stop an identity everywhere, now and for good
    Stop {
        /// Its SPIFFE ID, or the last part of it
        name: String,
        /// Go the way of a stop to every node, and stop nothing
        #[arg(long)]
        drill: bool,
    },
    #[command(after_help = FOUND)]
    /// What entries let run although nobody answers for it
    Found,
    #[command(after_help = ADOPT)]
    /// Give an owner to what was found, without a break for it
    Adopt(Adopt),
    #[command(subcommand, disable_help_subcommand = true, after_help = ASK)]
    /// Requests: what an identity may do only after a person's yes
    Ask(AskVerb),
    #[command(subcommand, disable_help_subcommand = true, after_help = GRANT)]
    /// Grants: what an identity may do for a time and a number of uses
    Grant(GrantVerb),
    #[command(subcommand, disable_help_subcommand = true, after_help = FINDING)]
    /// Findings: what something lacks, and you accept until a day
    Finding(FindingVerb),
    #[command(subcommand, disable_help_subcommand = true, after_help = EMERGENCY)]
    /// Emergencies: what two people let an identity do for half an hour at most
    Emergency(EmergencyVerb),
    #[command(subcommand, disable_help_subcommand = true, after_help = AUDIT)]
    /// The log: who did what to whom, and the proof that nobody changed it
    Audit(AuditVerb),
    #[command(after_help = TRACE)]
    /// From a decision or a run to the code, the identity and the people behind it, each hop with its record
    Trace {
        /// An instance (ins_..., as `avouch run` prints it), or the number of a decision's record
        what: String,
        /// SPIFFE ID of the agent whose record it is, if several have one of this number
        #[arg(long)]
        source: Option<String>,
        /// An exported log in place of the server's
        #[arg(long, value_name = "FILE")]
        offline: Option<PathBuf>,
        /// The only key that may have signed (PEM), from an earlier `avouch audit key`
        #[arg(long, value_name = "FILE", requires = "offline")]
        key: Option<PathBuf>,
    },
    #[command(after_help = VERIFY)]
    /// Whether everything that runs has what you require
    Verify {
        /// What everything must have: owner, end, stop (tried within 90 days, confirmed by every node)
        #[arg(long, value_delimiter = ',', required = true)]
        require: Vec<String>,
    },
    #[command(after_help = CONSOLE)]
    /// A link to the pages of the server, which signs you in once, within a minute
    Console,
}

/// Verbs on people.
#[derive(Debug, Subcommand)]
pub enum PersonVerb {
    #[command(after_help = PERSON)]
    /// Add a person; from the third on another security person has to approve
    Add {
        /// What people see
        name: String,
        /// The local user who is this person
        #[arg(long)]
        uid: Option<u32>,
        /// The URL of the provider at which the person signs in to the pages, as its documentation writes it
        #[arg(long, value_name = "URL", requires = "subject")]
        issuer: Option<String>,
        /// What the provider calls the person's account: the claim sub, never an e-mail address
        #[arg(long, value_name = "SUB", requires = "issuer")]
        subject: Option<String>,
        /// May add people, say yes for production, and stop any identity
        #[arg(long)]
        security: bool,
    },
    #[command(after_help = PERSON)]
    /// Say as which account at a provider you sign in to the pages
    SignIn {
        /// The URL of the provider, as its documentation writes it
        #[arg(long, value_name = "URL", requires = "subject")]
        issuer: Option<String>,
        /// What the provider calls your account: the claim sub, never an e-mail address
        #[arg(long, value_name = "SUB", requires = "issuer")]
        subject: Option<String>,
        /// As none any more
        #[arg(long, conflicts_with = "issuer", required_unless_present = "issuer")]
        none: bool,
    },
    #[command(after_help = PERSON)]
    /// All people
    List,
    #[command(after_help = PERSON)]
    /// Say yes to a person whom another security person wants to add
    Approve {
        /// ID of the person
        id: String,
    },
    #[command(after_help = PERSON)]
    /// Let a person leave: what is theirs becomes the successor's, and what has none pauses
    Leave {
        /// ID or name of the person
        person: String,
        /// Do it, after you have seen what becomes of everything
        #[arg(long)]
        apply: bool,
    },
}

/// Verbs on identities.
#[derive(Debug, Subcommand)]
pub enum IdentityVerb {
    #[command(after_help = IDENTITY)]
    /// Register an identity
    New(New),
    #[command(after_help = IDENTITY)]
    /// All identities, or some
    List {
        /// proposed, active, paused or stopped
        #[arg(long)]
        standing: Option<String>,
        /// ID or name of a person
        #[arg(long)]
        owner: Option<String>,
        /// service, machine, pipeline, ai-agent or helper
        #[arg(long)]
        kind: Option<String>,
        /// test, staging or prod
        #[arg(long)]
        env: Option<String>,
        /// Only those that nobody used for 30 days, as far as is known
        #[arg(long)]
        unused: bool,
    },
    #[command(after_help = IDENTITY)]
    /// What it is, who answers for it, who said yes, where it may run, how it is stopped
    Show {
        /// Its SPIFFE ID, or the last part of it
        name: String,
    },
    #[command(after_help = IDENTITY)]
    /// Say yes to an identity that waits for it
    Approve {
        /// Its SPIFFE ID, or the last part of it
        name: String,
    },
    #[command(after_help = IDENTITY)]
    /// Confirm that you own what was adopted for you
    Confirm {
        /// Its SPIFFE ID, or the last part of it
        name: String,
    },
    #[command(after_help = IDENTITY)]
    /// Let a local user run it, with `avouch run`
    Place {
        /// Its SPIFFE ID, or the last part of it
        name: String,
        /// SPIFFE ID of the node agent [default: the one here]
        #[arg(long)]
        node: Option<String>,
        /// The local user there [default: you]
        #[arg(long)]
        uid: Option<u32>,
    },
    #[command(after_help = IDENTITY)]
    /// Change owner, successor, end, code or number of runs
    Set {
        /// Its SPIFFE ID, or the last part of it
        name: String,
        /// ID or name of the new owner
        #[arg(long)]
        owner: Option<String>,
        /// ID or name of who takes over when the owner leaves
        #[arg(long)]
        successor: Option<String>,
        /// When it ends: 30d, 12h, or a moment such as 2027-01-31T00:00:00Z
        #[arg(long)]
        ends: Option<String>,
        /// Digest of the code that its runs are to have, as `avouch --json run` shows it; any: any code. Who begins other
        /// code is refused, and an AI agent is paused for it
        #[arg(long)]
        code: Option<String>,
        /// Most runs of it at a time on one node; any: as many as a node has
        #[arg(long, value_name = "NUMBER")]
        runs: Option<String>,
    },
}

/// What a new identity is.
#[derive(Debug, Args)]
pub struct New {
    /// A short name, which becomes /ENV/NAME, or a whole SPIFFE ID
    pub name: String,
    /// service, machine, pipeline, ai-agent or helper
    #[arg(long)]
    pub kind: String,
    /// test, staging or prod; it never changes
    #[arg(long)]
    pub env: String,
    /// What it is for, as a code such as fix-bugs
    #[arg(long)]
    pub purpose: String,
    /// When it ends: 30d, 12h, or a moment such as 2027-01-31T00:00:00Z
    #[arg(long)]
    pub ends: String,
    /// ID or name of the person who answers for it [default: you]
    #[arg(long)]
    pub owner: Option<String>,
    /// ID or name of who takes over when the owner leaves
    #[arg(long)]
    pub successor: Option<String>,
    /// The preset of the rules that says what it may do
    #[arg(long)]
    pub preset: Option<String>,
    /// Do not let me run an AI agent or helper on this node
    #[arg(long)]
    pub elsewhere: bool,
}

/// What is adopted, and as what.
#[derive(Debug, Args)]
pub struct Adopt {
    /// Names whose path begins with this
    #[arg(long)]
    pub path: String,
    /// service, machine, pipeline, ai-agent or helper
    #[arg(long)]
    pub kind: String,
    /// test, staging or prod; it never changes
    #[arg(long)]
    pub env: String,
    /// What they are for, as a code such as billing
    #[arg(long)]
    pub purpose: String,
    /// When they end: 365d, or a moment such as 2027-01-31T00:00:00Z
    #[arg(long)]
    pub ends: String,
    /// ID or name of the owner of all [default: for each whoever is suggested]
    #[arg(long)]
    pub owner: Option<String>,
    /// Adopt, after you have seen what
    #[arg(long)]
    pub apply: bool,
}

/// Verbs on requests.
#[derive(Debug, Subcommand)]
pub enum AskVerb {
    #[command(after_help = ASK)]
    /// What waits for a yes, newest first
    List {
        /// Also what was answered or has lapsed in the last day
        #[arg(long)]
        all: bool,
    },
    #[command(after_help = ASK)]
    /// What one request asks, word for word
    Show {
        /// Its ID
        id: String,
    },
    #[command(after_help = ASK)]
    /// Show it, and say yes to exactly that
    Yes {
        /// Its ID
        id: String,
    },
    #[command(after_help = ASK)]
    /// Show it, and say no; takes a yes back that was not used yet
    No {
        /// Its ID
        id: String,
    },
}

/// Verbs on grants.
#[derive(Debug, Subcommand)]
pub enum GrantVerb {
    #[command(after_help = GRANT)]
    /// Let an identity do one thing with one resource, so often and so long
    Give {
        /// A SPIFFE ID, or the last part of one
        name: String,
        /// ID of the resource in the rules, such as vault/deploy-key
        resource: String,
        /// What it may do with it; may be left out where the resource has one action
        #[arg(long)]
        action: Option<String>,
        /// How often
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long: 90s, 45m, 12h or 30d
        #[arg(long = "for", value_name = "TIME", default_value = "1h")]
        lasts: String,
        /// What it is for, as it is called elsewhere: ended together with all that is for it
        #[arg(long)]
        case: Option<String>,
    },
    #[command(after_help = GRANT)]
    /// What is given, newest first
    List {
        /// Only to this identity
        name: Option<String>,
        /// Also what was used up, taken back or has lapsed in the last day
        #[arg(long)]
        all: bool,
        /// Only what is for this case
        #[arg(long)]
        case: Option<String>,
    },
    #[command(after_help = GRANT)]
    /// Take a grant back, or all of a case; anybody may
    End {
        /// Its ID
        #[arg(required_unless_present = "case")]
        id: Option<String>,
        /// All that was given for this case
        #[arg(long, conflicts_with = "id")]
        case: Option<String>,
    },
}

/// Verbs on the log.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    #[command(after_help = AUDIT)]
    /// Write the log to standard output, as lines of JSON with its signed heads
    Export {
        /// Whose records: all, server, or the SPIFFE ID of a node's agent
        #[arg(long, value_name = "SOURCE", default_value = "all")]
        source: String,
    },
    #[command(after_help = ARGUMENT)]
    /// What stands in records of a day for an argument of a call: records hold digests
    Argument {
        /// The node's salt of that day: DATA_DIR/salts/2026-11-30 of its agent
        #[arg(long, value_name = "FILE")]
        salt: PathBuf,
        /// A parameter as resources.toml names it, and its value; once for each value of one that is a set
        #[arg(required = true, value_name = "NAME=VALUE")]
        arguments: Vec<String>,
    },
    #[command(after_help = AUDIT)]
    /// The public key that signs the heads, as PEM
    Key,
    #[command(after_help = MATCH)]
    /// Whether what was done is what people agreed to: their yeses and grants beside the receipts of the gates
    Match {
        /// An exported log in place of the server's
        #[arg(long, value_name = "FILE")]
        offline: Option<PathBuf>,
        /// The only key that may have signed (PEM), from an earlier `avouch audit key`
        #[arg(long, value_name = "FILE", requires = "offline")]
        key: Option<PathBuf>,
    },
    #[command(after_help = AUDIT)]
    /// Check every record, every link and every head, of the server and of every node
    Verify {
        /// An exported log in place of the server's
        #[arg(long, value_name = "FILE")]
        offline: Option<PathBuf>,
        /// The only key that may have signed (PEM), from an earlier `avouch audit key`
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
}

/// Verbs on published rules.
#[derive(Debug, Subcommand)]
pub enum RulesVerb {
    #[command(after_help = RULES)]
    /// Check a folder at the server and put it in force on every node, under the next number
    Publish {
        /// The folder
        folder: PathBuf,
        /// Why, in one line
        #[arg(long, default_value = "")]
        note: String,
    },
    #[command(after_help = RULES)]
    /// What was published, newest first
    List,
    #[command(after_help = RULES)]
    /// One publication, or its files
    Show {
        /// Its number [default: the rules in force]
        number: Option<u64>,
        /// Write the files to this folder, which must be new or empty
        #[arg(short = 'o', long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    #[command(after_help = RULES)]
    /// Say yes to rules that another security person published
    Approve {
        /// Their number
        number: u64,
    },
    #[command(after_help = RULES)]
    /// Take back rules that wait for a yes; of rules in force, publish those before them again
    Withdraw {
        /// Their number
        number: u64,
    },
}
