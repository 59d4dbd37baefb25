//! `hearth token`: registration tokens, with which people make their own accounts. Works while the server runs, and
//! while it doesn't.

use clap::{Args, Subcommand};

use super::{
    Failure, Options, offline, offline_or_first,
    output::{self, say},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create a token and print it
    #[command(after_help = "\
Examples:
  hearth token create                        for any number of accounts, for ever
  hearth token create --uses 1 --expires 7d  for one account within a week
  hearth token create --uses 1 --admin       for one administrator")]
    Create(Create),
    /// List all tokens
    List(Options),
    /// Make a token invalid; accounts that were made with it stay
    Revoke(Revoke),
}

#[derive(Args)]
pub(super) struct Create {
    /// How many accounts can be made with it [default: any number]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    uses: Option<i64>,
    /// For how long it is valid, such as 30m, 12h or 7d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Option<i64>,
    /// Accounts that are made with it are administrators
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
pub(super) struct Revoke {
    /// The token
    token: String,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(create) => offline_or_first(&create.options, async |app| {
            let token =
                app.accounts.create_registration_token(create.uses, create.expires, create.admin).await?;
            output::write_secret(
                format_args!("{token}\n"),
                "the token was made: `hearth token list` shows it",
            )
        }),
        Command::List(options) => list(&options),
        Command::Revoke(revoke) => offline(&revoke.options, async |app| {
            app.accounts.revoke_registration_token(&revoke.token).await?;
            say!("revoked {}", revoke.token)
        }),
    }
}

fn list(options: &Options) -> Result<(), Failure> {
    offline(options, async |app| {
        let now = app.environment.clock.now_ms();
        for token in app.accounts.registration_tokens().await? {
            let uses = match token.uses_allowed {
                Some(allowed) => format!("{} of {allowed} uses", token.used),
                None => format!("{} uses", token.used),
            };
            let expires = match token.expires_ts {
                Some(end) if end <= now => ", expired".to_owned(),
                Some(end) => format!(", expires in {}", spoken(end - now)),
                None => String::new(),
            };
            let admin = if token.makes_admin { ", makes administrators" } else { "" };
            say!("{}\t{uses}{expires}{admin}", token.token)?;
        }
        Ok(())
    })
}

const UNITS: [(char, i64); 4] = [('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1_000)];

/// `7d` in milliseconds.
fn duration(text: &str) -> Result<i64, String> {
    let parsed = UNITS.iter().find_map(|(unit, milliseconds)| {
        let number: i64 = text.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*milliseconds).filter(|duration| *duration > 0)
    });
    parsed.ok_or_else(|| "a time is a number and one of s, m, h and d: 30m, 12h, 7d".to_owned())
}

/// Milliseconds in the largest unit that they fill, rounded up.
fn spoken(milliseconds: i64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| milliseconds >= *unit);
    unit.map_or("a moment".to_owned(), |(name, unit)| format!("{}{name}", (milliseconds + unit - 1) / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!(duration("30m"), Ok(1_800_000));
        assert_eq!(duration("7d"), Ok(604_800_000));
        for wrong in ["", "7", "d", "0d", "-1h", "7w", "99999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(spoken(604_799_999), "7d");
        assert_eq!(spoken(10), "a moment");
    }
}
