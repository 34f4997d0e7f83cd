//! Another time for one process, by `libfaketime`: the product has no switch for its clock.

use std::path::PathBuf;
use std::process::Command;

/// What shows a process the time that a file says, however often the file changes.
pub struct FalseClock {
    library: PathBuf,
    file: PathBuf,
}

impl FalseClock {
    /// Shows the true time until [`FalseClock::set`] says otherwise. `None` with a word why, where the library is not
    /// installed.
    pub fn new(file: PathBuf) -> Option<Self> {
        let Some(library) = library() else {
            println!("not run: libfaketime is not installed (apt-get install faketime)");
            return None;
        };
        let clock = Self { library, file };
        clock.set("+0");
        Some(clock)
    }

    /// Sets the clock: `+3600` and `-3600` are seconds off the true time, `2030-01-01 00:00:00` stands still.
    pub fn set(&self, time: &str) {
        // Renamed over the old one, so that nobody reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{time}\n")).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    /// Stands still at `secs` since 1970.
    pub fn freeze(&self, secs: i64) {
        let moment = x509_parser::time::ASN1Time::from_timestamp(secs).unwrap().to_datetime();
        let (date, (hour, minute, second)) = (moment.date(), moment.to_hms());
        self.set(&format!("{date} {hour:02}:{minute:02}:{second:02}"));
    }

    /// Makes a command see this clock. Durations stay true.
    pub fn show<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC")
    }
}

/// Where Debian and its kin keep it.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let places = folders.chain(["/usr/lib".into(), "/usr/lib64".into()]);
    places.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file())
}
