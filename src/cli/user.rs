//! `hearth user`: accounts, made and changed by whoever can read the database. Works while the server runs, and while it
//! doesn't.

use std::io::{self, BufRead as _, IsTerminal as _};

use clap::{Args, Subcommand};

use super::{
    Failure, Options, offline, offline_or_first,
    output::{self, say},
};
use crate::{
    account::{LogOut, Measure, NewAccount, OwnLimit},
    limits::Class,
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create an account; without --password-stdin a random password is made and printed
    #[command(after_help = "\
Examples:
  hearth user create alice
  hearth user create bob --admin
  echo 'correct horse battery staple' | hearth user create carol --password-stdin")]
    Create(Create),
    /// Set a new password and log all of the user's devices out
    SetPassword(SetPassword),
    /// Close an account for ever: no login, no devices, no profile; its name is not given out again
    Deactivate(Deactivate),
    /// Answer nothing that an account asks until it is unlocked; its devices stay logged in
    Lock(Name),
    /// Answer a locked account again
    Unlock(Name),
    /// Let an account read and leave rooms, but hardly anything else
    Suspend(Name),
    /// Let a suspended account do again what others do
    Unsuspend(Name),
    /// Show the rate limits that an account has of its own, or give it some; a running server notices
    #[command(after_help = "\
Examples:
  hearth user limits bridge --unlimited
  hearth user limits bot --class message --rate 100/200
  hearth user limits bot --usual")]
    Limits(Limits),
    /// List all accounts, oldest first
    List(Options),
}

#[derive(Args)]
pub(super) struct Create {
    /// The name: what stands before the colon of the user's id
    name: String,
    /// Make it an administrator
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    password: Password,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
pub(super) struct SetPassword {
    /// The user's name or full id
    user: String,
    /// Leave the user's devices logged in
    #[arg(long)]
    keep_devices: bool,
    #[command(flatten)]
    password: Password,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
pub(super) struct Deactivate {
    /// The user's name or full id
    user: String,
    /// Ask that the user's messages be no longer shown to those who join their rooms later
    #[arg(long)]
    erase: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
pub(super) struct Name {
    /// The user's name or full id
    user: String,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
pub(super) struct Limits {
    /// The user's name or full id
    user: String,
    /// The class, as in the configuration; all of them without it
    #[arg(long)]
    class: Option<String>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
#[group(multiple = false)]
struct Limit {
    /// How many a second in the long run, and how many at once: 100/200
    #[arg(long, value_name = "PER_SECOND/BURST")]
    rate: Option<String>,
    /// No limit at all
    #[arg(long)]
    unlimited: bool,
    /// Those of everybody again
    #[arg(long)]
    usual: bool,
}

impl Limit {
    /// `None`: only show.
    fn get(&self) -> Result<Option<OwnLimit>, Failure> {
        if self.unlimited {
            return Ok(Some(OwnLimit::None));
        }
        if self.usual {
            return Ok(Some(OwnLimit::Usual));
        }
        let Some(rate) = &self.rate else { return Ok(None) };
        let parsed = rate.split_once('/').and_then(|(per_second, burst)| {
            let per_1000s = (per_second.parse::<f64>().ok()? * 1000.0).round();
            let burst = i64::from(burst.parse::<u32>().ok()?);
            let sensible = (1.0..=1e9).contains(&per_1000s) && burst > 0;
            sensible.then_some(OwnLimit::Rate { per_1000s: per_1000s as i64, burst })
        });
        let wrong =
            || Failure::new(format!("`{rate}` is no rate: write 100/200 for 100 a second and 200 at once"));
        parsed.map(Some).ok_or_else(wrong)
    }
}

#[derive(Args)]
struct Password {
    /// Read the password from the standard input, one line
    #[arg(long)]
    password_stdin: bool,
}

/// Characters of a password that is made up: about 119 bits.
const MADE_UP: usize = 20;

impl Password {
    /// The password, and whether it was made up here and has to be told.
    fn get(&self, made_up: impl FnOnce() -> String) -> Result<(String, bool), Failure> {
        if !self.password_stdin {
            return Ok((made_up(), true));
        }
        if io::stdin().is_terminal() {
            eprintln!("Password (shown as you type; leave --password-stdin out to get a random one):");
        }
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        let password = line.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(Failure::new("the standard input has no password in its first line"));
        }
        Ok((password.to_owned(), false))
    }
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(create) => self::create(&create),
        Command::SetPassword(change) => set_password(&change),
        Command::Deactivate(end) => deactivate(&end),
        Command::Lock(name) => set(&name, Measure::Lock, true, "is locked"),
        Command::Unlock(name) => set(&name, Measure::Lock, false, "is unlocked"),
        Command::Suspend(name) => set(&name, Measure::Suspension, true, "is suspended"),
        Command::Unsuspend(name) => set(&name, Measure::Suspension, false, "is suspended no longer"),
        Command::Limits(limits) => self::limits(&limits),
        Command::List(options) => list(&options),
    }
}

fn create(create: &Create) -> Result<(), Failure> {
    offline_or_first(&create.options, async |app| {
        let (password, made_up) = create.password.get(|| app.environment.entropy.token(MADE_UP))?;
        let new = NewAccount {
            user_id: app.accounts.available(Some(&create.name)).await?,
            password: Some(password.clone()),
            admin: create.admin,
            token: None,
            device: None,
        };
        let made = app.accounts.register(new).await?;
        let user_id = made.user_id;
        let done = format!("created {user_id}{}", if create.admin { ", an administrator" } else { "" });
        tell(&done, &password, made_up, &format!("{user_id} was made"), &create.name)
    })
}

fn set_password(change: &SetPassword) -> Result<(), Failure> {
    offline(&change.options, async |app| {
        let (account, user_id) = app.accounts.find(&change.user).await?;
        let (password, made_up) = change.password.get(|| app.environment.entropy.token(MADE_UP))?;
        let log_out = if change.keep_devices { LogOut::Nobody } else { LogOut::Everybody };
        app.accounts.set_password(account.recipient, password.clone(), log_out).await?;
        let done = format!("{user_id} has a new password");
        tell(&done, &password, made_up, &done, user_id.localpart())
    })
}

/// Says what was done, and the password if it was made up: in one piece, so that nobody has read the one and lost the other.
fn tell(done: &str, password: &str, made_up: bool, but: &str, name: &str) -> Result<(), Failure> {
    if !made_up {
        return say!("{done}");
    }
    let lost =
        format!("{but}, and nobody knows the password: set another with `hearth user set-password {name}`");
    output::write_secret(format_args!("{done}\npassword: {password}\n"), &lost)
}

fn deactivate(end: &Deactivate) -> Result<(), Failure> {
    offline(&end.options, async |app| {
        let (account, user_id) = app.accounts.find(&end.user).await?;
        app.accounts.deactivate(account.recipient, end.erase).await?;
        say!("deactivated {user_id}")
    })
}

fn set(name: &Name, measure: Measure, on: bool, done: &str) -> Result<(), Failure> {
    offline(&name.options, async |app| {
        let (account, user_id) = app.accounts.find(&name.user).await?;
        if on && account.deactivated_ts.is_some() {
            return Err(Failure::new(format!("{user_id} is deactivated: nobody can log in to it any more")));
        }
        app.accounts.set_measure(account.recipient, measure, on).await?;
        say!("{user_id} {done}")
    })
}

fn limits(change: &Limits) -> Result<(), Failure> {
    let limit = change.limit.get()?;
    let classes = || Class::of_accounts().map(Class::name);
    if let Some(class) = &change.class
        && !classes().any(|known| known == class)
    {
        let known = classes().collect::<Vec<_>>().join(", ");
        return Err(Failure::new(format!(
            "there is no class `{class}` of limits that accounts have: {known}"
        )));
    }
    offline(&change.options, async |app| {
        let (account, user_id) = app.accounts.find(&change.user).await?;
        let chosen = || classes().filter(|name| change.class.as_deref().is_none_or(|class| class == *name));
        if let Some(limit) = limit {
            for class in chosen() {
                app.accounts.set_limit(account.recipient, class, limit).await?;
            }
        }
        let own = app.accounts.own_limits(account.recipient).await?;
        say!("{user_id}")?;
        for class in chosen() {
            let limit = match own.iter().find(|row| row.class == class).map(|row| row.rate) {
                None => "as everybody".to_owned(),
                Some(None) => "unlimited".to_owned(),
                Some(Some((per_1000s, burst))) => format!("{}/{burst}", per_1000s as f64 / 1000.0),
            };
            say!("{class}\t{limit}")?;
        }
        Ok(())
    })
}

fn list(options: &Options) -> Result<(), Failure> {
    offline(options, async |app| {
        for account in app.accounts.list().await? {
            let marks = [
                (account.admin, "admin"),
                (account.deactivated_ts.is_some(), "deactivated"),
                (account.locked, "locked"),
                (account.suspended, "suspended"),
                (account.guest, "guest"),
            ];
            let marks: Vec<&str> = marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect();
            let line = format!("{}\t{}", account.user_id, marks.join(","));
            say!("{}", line.trim_end())?;
        }
        Ok(())
    })
}
