//! Whether a filter of the log lets anything through that was meant to be logged.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{Error, Log};

impl Log {
    pub(super) fn checked(&self) -> Result<(), Error> {
        if let Err(cause) = EnvFilter::builder().parse(&self.filter) {
            return Err(Error::value("log.filter", &self.filter, cause.to_string()));
        }
        if let Some(word) = misspelt_level(&self.filter) {
            let cause = format!(
                "`{word}` is no level, and with it nothing would be logged: write off, error, warn, info, debug or trace"
            );
            return Err(Error::value("log.filter", &self.filter, cause));
        }
        Ok(())
    }
}

/// A word that stands alone in the filter of a log and is no level, if nothing else in it is about this program. It would be
/// taken for the name of a part of the program, the only one that is logged.
fn misspelt_level(filter: &str) -> Option<&str> {
    let directives = || filter.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let ours = |directive: &str| {
        let part = directive.split(['=', '[']).next().unwrap_or_default();
        // A directive is about all parts whose names begin with its word.
        directive.parse::<LevelFilter>().is_ok() || part.starts_with("hearth") || "hearth".starts_with(part)
    };
    if directives().any(ours) { None } else { directives().find(|directive| !directive.contains(['=', '['])) }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, refused};

    #[test]
    fn a_filter_by_which_nothing_would_be_logged_is_refused() {
        for filter in ["nfo", " nfo ", "nfo,ruma=debug", "infos,warnings", "rusqlite", "sqlx=off,tokio"] {
            let text = format!("[log]\nfilter = {filter:?}");
            refused(&text, &["log.filter", filter, "is no level", "error, warn, info, debug or trace"]);
        }
        for filter in [
            "off",
            "INFO",
            "Trace",
            "0",
            "",
            "info,nfo",
            "hearth",
            "hearth::http",
            "hearth::http=debug,nfo",
            "sqlx=debug",
            "[request]=debug",
            "nfo,[{room}]=info",
            "info,hearth=off",
            "warn,hearth[request]=debug",
        ] {
            let text = format!("[log]\nfilter = {filter:?}");
            assert!(Config::parse(&text, "hearth.toml", std::iter::empty()).is_ok(), "{filter:?} is good");
        }
    }
}
