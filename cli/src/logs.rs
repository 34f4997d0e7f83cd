//! Log lines of the daemons, in the two forms that operators' tools already read: `key=value` text and JSON.
//!
//! Never holds a secret, never blocks a caller on more than one short write, never stops the process when the
//! output is gone.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// How much is written. The order is the one of the Logger API: each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Panic = 1,
    Fatal = 2,
    Error = 3,
    Warn = 4,
    Info = 5,
    Debug = 6,
    Trace = 7,
}

impl Level {
    /// Reads a level as the configuration and the command line spell it, in any case; `warning` is `warn`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "panic" => Self::Panic,
            "fatal" => Self::Fatal,
            "error" => Self::Error,
            "warn" | "warning" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }

    /// The level with this number in the Logger API (`spire.api.types.LogLevel`); zero is unspecified.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Panic,
            2 => Self::Fatal,
            3 => Self::Error,
            4 => Self::Warn,
            5 => Self::Info,
            6 => Self::Debug,
            7 => Self::Trace,
            _ => return None,
        })
    }

    /// The number in the Logger API.
    #[must_use]
    pub fn number(self) -> i32 {
        i32::from(self as u8)
    }

    /// The word in a log line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warn => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn of(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }
}

/// Form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Nothing configured: text, time in whole seconds.
    #[default]
    Unset,
    /// Text, time with nanoseconds.
    Text,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// Reads `text` or `json`, in any case; the empty text is [`Format::Unset`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "" => Self::Unset,
            "text" => Self::Text,
            "json" => Self::Json,
            _ => return None,
        })
    }
}

/// What to write and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub level: Level,
    pub format: Format,
    /// Appended to, made with mode 0640; `None` = standard output.
    pub file: Option<PathBuf>,
    /// Adds `file` and `func` to each line.
    pub source_location: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: Level::Info, format: Format::Unset, file: None, source_location: false }
    }
}

/// Why logging can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("unable to open log file {path}: {reason}")]
    Open { path: PathBuf, reason: std::io::Error },
    #[error("logging was started twice in one process")]
    Twice,
}

struct Shared {
    level: AtomicU8,
    launch: Level,
    options: Options,
    sink: Mutex<Sink>,
}

enum Sink {
    Stdout,
    File(File),
    #[cfg(test)]
    Memory(Arc<Mutex<Vec<u8>>>),
}

/// Changes the level and reopens the file while the daemon runs.
#[derive(Clone)]
pub struct LogHandle(Arc<Shared>);

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("level", &self.level()).finish_non_exhaustive()
    }
}

impl LogHandle {
    /// A handle that writes nowhere: for tests of what changes levels.
    #[must_use]
    pub fn detached(level: Level) -> Self {
        Self::with_sink(Options { level, ..Options::default() }, Sink::Stdout)
    }

    fn with_sink(options: Options, sink: Sink) -> Self {
        Self(Arc::new(Shared {
            level: AtomicU8::new(options.level as u8),
            launch: options.level,
            options,
            sink: Mutex::new(sink),
        }))
    }

    /// The level in force.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::from_number(i32::from(self.0.level.load(Ordering::Relaxed))).unwrap_or(self.0.launch)
    }

    /// The level that was configured.
    #[must_use]
    pub fn launch_level(&self) -> Level {
        self.0.launch
    }

    /// Takes effect with the next line.
    pub fn set_level(&self, level: Level) {
        self.0.level.store(level as u8, Ordering::Relaxed);
    }

    /// Back to the configured level.
    pub fn reset_level(&self) {
        self.set_level(self.0.launch);
    }

    /// Opens the log file anew, after it was moved away; nothing to do on standard output.
    ///
    /// # Errors
    /// [`LogError::Open`]; the old file stays in use.
    pub fn reopen(&self) -> Result<(), LogError> {
        if let Some(path) = &self.0.options.file {
            let file = open(path)?;
            *self.0.sink.lock() = Sink::File(file);
        }
        Ok(())
    }
}

fn open(path: &PathBuf) -> Result<File, LogError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
        .map_err(|reason| LogError::Open { path: path.clone(), reason })
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`LogError::Open`] for a file that can't be opened, [`LogError::Twice`] for a second start.
pub fn init(options: Options) -> Result<LogHandle, LogError> {
    let sink = match &options.file {
        Some(path) => Sink::File(open(path)?),
        None => Sink::Stdout,
    };
    let handle = LogHandle::with_sink(options, sink);
    let subscriber = tracing_subscriber::registry().with(Lines(handle.0.clone()));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(handle)
}

/// The layer that turns events into lines.
struct Lines(Arc<Shared>);

impl Lines {
    /// Libraries below us speak only from warnings up; what they say at `info` is about themselves.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let level = Level::of(*metadata.level());
        let limit = self.0.level.load(Ordering::Relaxed);
        level as u8 <= limit && (is_ours(metadata) || level <= Level::Warn)
    }

    /// False for what is written at no level: libraries speak a lot about each message, and asking costs.
    fn could_want(metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && (is_ours(metadata) || Level::of(*metadata.level()) <= Level::Warn)
    }

    fn write(&self, line: &str) {
        // A log that can't be written must not stop the daemon; there is nowhere to report it.
        let _ = match &mut *self.0.sink.lock() {
            Sink::Stdout => std::io::stdout().lock().write_all(line.as_bytes()),
            Sink::File(file) => file.write_all(line.as_bytes()),
            #[cfg(test)]
            Sink::Memory(bytes) => bytes.lock().write_all(line.as_bytes()),
        };
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("avouch")
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::could_want(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        if self.0.options.source_location {
            if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
                fields.set("file", Value::Text(format!("{file}:{line}")));
            }
            fields.set("func", Value::Text(metadata.target().to_owned()));
        }
        let format = self.0.options.format;
        let time = crate::clock::rfc3339(format != Format::Unset);
        let level = Level::of(*metadata.level());
        self.write(&match format {
            Format::Json => json_line(&time, level, fields),
            Format::Text | Format::Unset => text_line(&time, level, &fields),
        });
    }
}

enum Value {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
}

#[derive(Default)]
struct Fields {
    message: String,
    others: BTreeMap<String, Value>,
}

impl Fields {
    fn set(&mut self, name: &str, value: Value) {
        // `r#type` and the like reach us with their escape.
        let name = name.strip_prefix("r#").unwrap_or(name);
        if let ("json_fields", Value::Text(text)) = (name, &value)
            && let Ok(serde_json::Value::Object(more)) = serde_json::from_str(text)
        {
            return self.spread(more);
        }
        if let ("message", Value::Text(text)) = (name, &value) {
            self.message.clone_from(text);
        } else {
            self.others.insert(name.to_owned(), value);
        }
    }
}

impl Fields {
    /// Fields that are known only at run time arrive as one JSON object under the name `json_fields`.
    fn spread(&mut self, more: serde_json::Map<String, serde_json::Value>) {
        for (name, value) in more {
            let value = match value {
                serde_json::Value::String(text) => Value::Text(text),
                serde_json::Value::Number(number) => Value::Number(number),
                serde_json::Value::Bool(truth) => Value::Bool(truth),
                other => Value::Text(other.to_string()),
            };
            self.others.insert(name, value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), Value::Text(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), Value::Text(value.to_owned()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::Number(value.into()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Value::Number(value.into()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::Bool(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.set(field.name(), Value::Number(number)),
            None => self.set(field.name(), Value::Text(value.to_string())),
        }
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field.name(), Value::Text(value.to_string()));
    }
}

fn text_line(time: &str, level: Level, fields: &Fields) -> String {
    let mut line = format!("time=\"{time}\" level={} msg=", level.name());
    push_quoted(&mut line, &fields.message);
    for (name, value) in &fields.others {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        match value {
            Value::Text(text) => push_quoted(&mut line, text),
            Value::Number(number) => line.push_str(&number.to_string()),
            Value::Bool(truth) => line.push_str(if *truth { "true" } else { "false" }),
        }
    }
    line.push('\n');
    line
}

/// Bare if every character is harmless, else in double quotes with escapes; the empty text prints as nothing.
fn push_quoted(line: &mut String, text: &str) {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if text.chars().all(bare) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}

fn json_line(time: &str, level: Level, fields: Fields) -> String {
    let mut object: BTreeMap<String, serde_json::Value> = fields
        .others
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                Value::Text(text) => text.into(),
                Value::Number(number) => serde_json::Value::Number(number),
                Value::Bool(truth) => truth.into(),
            };
            // The three names of the line itself win; a field of that name moves aside, as in logrus.
            match name.as_str() {
                "time" | "level" | "msg" => (format!("fields.{name}"), value),
                _ => (name, value),
            }
        })
        .collect();
    object.insert("time".into(), time.into());
    object.insert("level".into(), level.name().into());
    object.insert("msg".into(), fields.message.into());
    let mut line = serde_json::to_string(&object).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(format: Format, level: Level, act: impl FnOnce(&LogHandle)) -> String {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let options = Options { level, format, ..Options::default() };
        let handle = LogHandle::with_sink(options, Sink::Memory(bytes.clone()));
        let subscriber = tracing_subscriber::registry().with(Lines(handle.0.clone()));
        tracing::subscriber::with_default(subscriber, || act(&handle));
        String::from_utf8(bytes.lock().clone()).unwrap()
    }

    #[test]
    fn text_lines_have_sorted_fields_and_quote_only_where_needed() {
        let text = lines_of(Format::Unset, Level::Info, |_| {
            tracing::info!(target: "avouch", spiffe_id = "spiffe://td/a", pid = 7, empty = "", "X509 CA \"prepared\"");
        });
        let (time, rest) = text.split_once("\" ").unwrap();
        assert_eq!(
            rest,
            "level=info msg=\"X509 CA \\\"prepared\\\"\" empty= pid=7 spiffe_id=\"spiffe://td/a\"\n"
        );
        assert_eq!(time.len(), "time=\"2026-11-22T11:24:21Z".len(), "{time}");
    }

    #[test]
    fn fields_known_only_at_run_time_come_as_one_json_object() {
        let text = lines_of(Format::Unset, Level::Info, |_| {
            tracing::info!(target: "avouch", json_fields = r#"{"b":1,"a":"x y","c":true}"#, "hello");
        });
        assert!(text.ends_with("msg=hello a=\"x y\" b=1 c=true\n"), "{text}");
    }

    #[test]
    fn json_lines_have_sorted_keys_and_say_warning() {
        let text = lines_of(Format::Json, Level::Info, |_| {
            tracing::warn!(target: "avouch", ok = true, count = 2, msg = "other", "slow");
        });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["level"], "warning");
        assert_eq!(value["msg"], "slow");
        assert_eq!(value["fields.msg"], "other");
        assert_eq!(value["count"], 2);
        assert!(text.starts_with("{\"count\":2,\"fields.msg\""), "{text}");
    }

    #[test]
    fn the_level_changes_while_running_and_returns_to_the_configured_one() {
        let text = lines_of(Format::Unset, Level::Info, |handle| {
            tracing::debug!(target: "avouch", "one");
            handle.set_level(Level::Debug);
            tracing::debug!(target: "avouch", "two");
            handle.reset_level();
            tracing::debug!(target: "avouch", "three");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("two"), "{text}");
    }

    #[test]
    fn libraries_are_heard_only_from_warnings_up() {
        let text = lines_of(Format::Unset, Level::Trace, |_| {
            tracing::info!(target: "h2::codec", "noise");
            tracing::warn!(target: "h2::codec", "trouble");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("trouble"), "{text}");
    }

    #[test]
    fn a_moved_file_is_opened_anew() {
        let dir = std::env::temp_dir().join(format!("avouch-logs-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.log");
        let options = Options { file: Some(path.clone()), ..Options::default() };
        let handle = LogHandle::with_sink(options, Sink::File(open(&path).unwrap()));
        std::fs::rename(&path, dir.join("b.log")).unwrap();
        handle.reopen().unwrap();
        assert!(path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn levels_have_the_numbers_of_the_logger_api() {
        for number in 1..=7 {
            assert_eq!(Level::from_number(number).map(Level::number), Some(number));
        }
        assert_eq!(Level::from_number(0), None);
        assert_eq!(Level::parse("WARNING"), Some(Level::Warn));
        assert_eq!(Level::parse("loud"), None);
    }
}
