//! The sections of the configuration: one struct each. The comments are the reference that operators read.

use std::{net::SocketAddr, path::PathBuf};

use ruma::{OwnedServerName, OwnedUserId, RoomVersionId, owned_server_name};
use serde::{Deserialize, Serialize};

use super::setting::{section, value};
use crate::{limits::Class, store::Durability};

value!(Api, RegistrationMode, ContactRole, Durability, LookUp, OpenTo);

/// An API that a listener can serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// What users' programs speak: `/_matrix/client`, `/.well-known/matrix`, the landing page.
    #[default]
    Client,
    /// What other homeservers speak: `/_matrix/federation`, `/_matrix/key`.
    Federation,
    /// `/metrics`, for Prometheus.
    Metrics,
}

/// Who may create an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationMode {
    Closed,
    #[default]
    Token,
    Open,
}

/// Who may look a profile up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LookUp {
    #[default]
    Everybody,
    Users,
    Acquaintances,
}

/// Whom something is open to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenTo {
    #[default]
    Everybody,
    Users,
    Nobody,
}

/// What a support contact is for ("Getting support for a server").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum ContactRole {
    #[default]
    #[serde(rename = "m.role.admin")]
    Admin,
    #[serde(rename = "m.role.security")]
    Security,
}

section! {
    /// A port and what it serves.
    pub struct Listener {
        /// The address and port: "127.0.0.1:8008" is reachable from this machine only, "[::]:8008" from everywhere.
        pub bind: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8008));
        /// What it serves: any of "client", "federation" and "metrics". Metrics are for your own network only.
        pub serve: Vec<Api> = vec![Api::Client, Api::Federation];
        /// Whether requests come by way of a reverse proxy, which adds the client's address to the header X-Forwarded-For.
        /// Limits count for that address then. Leave it off on a port that anybody else can reach: they could claim any.
        pub behind_proxy: bool = false;
        /// A certificate makes the port speak HTTPS (HTTP/1.1 and HTTP/2). Without one it speaks plain HTTP, for a reverse
        /// proxy in front of it.
        pub tls: Option<Tls> = None;
    }
}

section! {
    /// A certificate and its key.
    pub struct Tls {
        /// A PEM file with the certificate and the chain that leads to it. When it or the key changes, both are read again
        /// within seconds, and no connection ends.
        pub certificate: PathBuf = PathBuf::new(), example "\"/etc/hearth/fullchain.pem\"";
        /// A PEM file with the certificate's private key.
        pub key: PathBuf = PathBuf::new(), example "\"/etc/hearth/privkey.pem\"";
    }
}

section! {
    /// Where everything is stored.
    pub struct Database {
        /// The database: "sqlite:PATH". Without it the file is hearth.db in `data_dir`.
        pub url: Option<String> = None, example "\"sqlite:./hearth-data/hearth.db\"";
        /// When a message counts as sent: "full" when it would survive a loss of power, "normal" when it would survive a
        /// crash of the server. A little faster, and the last seconds before a loss of power may be missing.
        pub synchronous: Durability = Durability::Full;
    }
}

section! {
    /// Who may create an account.
    pub struct Registration {
        /// "token": whoever has a token made by `hearth token create`; "open": anybody; "closed": nobody, accounts are made by
        /// `hearth user create`.
        pub mode: RegistrationMode = RegistrationMode::Token;
        /// Whether anybody gets an account of a guest, without a name or a password. Guests read rooms that are open to the
        /// world and enter those that let guests in, and can't do much else.
        pub guests: bool = false;
        /// A secret for tools that create accounts through /_synapse/admin/v1/register. Without it that path isn't served.
        pub shared_secret: Option<String> = None, example "\"a long random text\"", secret = true;
    }
}

section! {
    /// What rooms may be.
    pub struct Rooms {
        /// The version of new rooms, unless their creator asks for another.
        pub default_version: RoomVersionId = RoomVersionId::V12;
        /// The most members of a room. Beyond it this server's users can't join or be invited; rooms that are larger already
        /// go on working.
        pub max_members: u32 = 100;
        /// The longest text of a message, in characters. In rooms that other servers can join, Matrix itself sets a limit of
        /// 65,536 bytes for the whole event.
        pub max_text_chars: u32 = 100_000;
    }
}

section! {
    /// How long rooms keep their history.
    pub struct Retention {
        /// Whether anything is ever too old. When off, history is kept for ever, whatever rooms say in `m.room.retention`. When
        /// on, messages that are too old are hidden from everybody and deleted soon after. This can't be undone.
        pub enabled: bool = false;
        /// How long rooms that say nothing keep their history, in seconds. Without it they keep it for ever.
        pub default_lifetime_seconds: Option<u64> = None, example "31536000";
        /// The shortest time that a room may ask for, in seconds: one that asks for less has this.
        pub shortest_lifetime_seconds: u64 = 24 * 60 * 60;
        /// The longest time that a room may ask for, in seconds: one that asks for more has this.
        pub longest_lifetime_seconds: Option<u64> = None, example "63072000";
        /// How often what is hidden is deleted, in seconds.
        pub purge_interval_seconds: u64 = 60 * 60;
    }
}

section! {
    /// Events that are sent later.
    pub struct DelayedEvents {
        /// The longest delay, in seconds.
        pub max_delay_seconds: u32 = 7 * 24 * 60 * 60;
        /// How many events a user may have scheduled at a time. With 0 nobody can schedule any.
        pub max_scheduled: u32 = 100;
    }
}

section! {
    /// What the server itself says to its users, when an administrator has something to tell them.
    pub struct ServerNotices {
        /// The name of the account that speaks. Without it there are no server notices.
        pub localpart: Option<String> = None, example "\"notices\"";
        /// What the account is called.
        pub display_name: String = "Server Notices".to_owned();
        /// The account's picture, and that of the rooms.
        pub avatar_url: Option<String> = None, example "\"mxc://example.org/picture\"";
        /// What the rooms are called.
        pub room_name: String = "Server Notices".to_owned();
    }
}

section! {
    /// What users say about themselves.
    pub struct Profiles {
        /// Who may look a profile up: "everybody"; "users", those who are logged in; or "acquaintances", users who share a room
        /// with its owner or could enter one that its owner is in.
        pub look_up: LookUp = LookUp::Everybody;
    }
}

section! {
    /// Who is online.
    pub struct Presence {
        /// Whether people see of each other who is online. When off nobody is, and it costs nothing.
        pub enabled: bool = true;
        /// Whether other homeservers are told, for those of their users who share a room.
        pub federate: bool = true;
        /// After how long without activity somebody is idle, in milliseconds.
        pub idle_after_ms: u32 = 5 * 60 * 1000;
        /// How long after the last sign of life of a device it counts as gone, in milliseconds. Phones that change networks
        /// need some seconds.
        pub offline_after_ms: u32 = 30 * 1000;
    }
}

section! {
    /// Looking for people.
    pub struct UserDirectory {
        /// Whether people find everybody with an account here. When off they find those with whom they share a room, and
        /// members of rooms that anybody can join or read.
        pub search_all_users: bool = false;
    }
}

section! {
    /// How often clients and other servers may do what costs the server something.
    pub struct Limits {
        /// Whether there are any such limits. They count per account, or per address for those who have none yet. `hearth user
        /// limits` gives an account limits of its own.
        pub enabled: bool = true;
        /// Sending messages and other events.
        pub message: Rate = Rate { per_second: 10.0, burst: 50 };
        /// Inviting people, also along with the creation of a room.
        pub invite: Rate = Rate { per_second: 1.0, burst: 200 };
        /// Joining rooms, and asking to be let in.
        pub join: Rate = Rate { per_second: 1.0, burst: 100 };
        /// Creating and upgrading rooms.
        pub room_creation: Rate = Rate { per_second: 0.5, burst: 50 };
        /// Attempts to log in.
        pub login: Rate = Rate { per_second: 1.0, burst: 10 };
        /// Attempts to log in to one account, wherever they come from: how fast its password can be guessed.
        pub login_account: Rate = Rate { per_second: 0.1, burst: 20 };
        /// Creating accounts.
        pub registration: Rate = Rate { per_second: 1.0, burst: 10 };
        /// Everything that another server asks, by its name; also by its address, before its signature has been checked.
        pub federation: Rate = Rate { per_second: 500.0, burst: 2000 };
        /// Each of the other requests that the specification marks as rate-limited.
        pub default: Rate = Rate { per_second: 10.0, burst: 100 };
    }
}

impl Limits {
    /// The rate of a class.
    pub fn of(&self, class: Class) -> &Rate {
        match class {
            Class::Free | Class::Default => &self.default,
            Class::Message => &self.message,
            Class::Invite => &self.invite,
            Class::Join => &self.join,
            Class::RoomCreation => &self.room_creation,
            Class::Login => &self.login,
            Class::LoginAccount => &self.login_account,
            Class::Registration => &self.registration,
            Class::Federation => &self.federation,
        }
    }
}

section! {
    /// A budget: `burst` requests at once, refilled by `per_second`.
    pub struct Rate {
        /// How many a second in the long run; 0.1 is one in ten seconds.
        pub per_second: f64 = 10.0;
        /// How many at once after a pause.
        pub burst: u32 = 100;
    }
}

section! {
    /// Signing in on a new device by a QR code, which another device shows or scans. The two meet on this server.
    pub struct QrSignIn {
        /// Who may open such a meeting: "everybody", so that also a device that isn't signed in yet can show the code; "users",
        /// those who are logged in; or "nobody", which turns it off. It is kept in memory, for five minutes at most.
        pub rendezvous: OpenTo = OpenTo::Everybody;
    }
}

section! {
    /// Sockets that clients hold in place of `/sync`.
    pub struct Stream {
        /// How long client or server may be silent before they say that they are there. Proxies in front of the server have
        /// to keep silent connections for longer.
        pub heartbeat_ms: u32 = 30_000;
        /// How long a client may leave what waits for it unread or unacknowledged.
        pub patience_ms: u32 = 30_000;
    }
}

section! {
    /// What goes to the log, which is the standard error output.
    pub struct Log {
        /// "error", "warn", "info", "debug" or "trace", or by part of the server: `info,hearth::http=debug` logs every
        /// request.
        pub filter: String = "info".to_owned();
    }
}

section! {
    /// Whom users can turn to; served as /.well-known/matrix/support.
    pub struct Support {
        /// A page about getting help.
        pub page: Option<String> = None, example "\"https://example.org/help\"";
        /// People to turn to, each with a Matrix id, an e-mail address or both.
        pub contact: Vec<Contact> = Vec::new();
    }
}

section! {
    /// Somebody to turn to.
    pub struct Contact {
        /// "m.role.admin" or "m.role.security".
        pub role: ContactRole = ContactRole::Admin;
        /// Their Matrix id.
        pub matrix_id: Option<OwnedUserId> = None, example "\"@admin:example.org\"";
        /// Their e-mail address.
        pub email_address: Option<String> = None, example "\"admin@example.org\"";
    }
}

section! {
    /// Rooms shared with other homeservers.
    pub struct Federation {
        /// When off, this server speaks to no other, answers none, and all of its new rooms are local for ever.
        pub enabled: bool = true;
        /// Where other servers reach this one, if not under its name: "matrix.example.org:443". Served as
        /// /.well-known/matrix/server, which they ask for at `https://example.org`.
        pub address: Option<String> = None, example "\"matrix.example.org:443\"";
        /// If there are any, only servers with these names are spoken to, in either direction: "example.org", or
        /// "*.example.org" for all below it.
        pub allow: Vec<String> = Vec::new();
        /// Servers with these names never are.
        pub deny: Vec<String> = Vec::new();
        /// A PEM file with the certificate authorities that other servers are believed by, instead of the system's.
        pub ca_file: Option<PathBuf> = None, example "\"/etc/hearth/ca.pem\"";
        /// Whether the certificates of other servers are verified. Never turn this off outside of tests: anybody on the way could
        /// read and change everything.
        pub verify_tls: bool = true;
        /// Whether other servers may be on this machine and in private networks. Otherwise such addresses are refused for
        /// every outgoing request, whatever name leads to them.
        pub allow_private_networks: bool = false;
        /// Servers that are asked for the keys of servers that don't answer, in this order.
        pub notaries: Vec<OwnedServerName> = vec![owned_server_name!("matrix.org")];
    }
}
