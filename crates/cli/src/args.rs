//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Secure group messaging: end-to-end encrypted groups over a Conclave server.
///
/// GROUP is a group's title, its URI, or the beginning of the random part of its URI. USER is a name at your own server
/// (`bob`), one with a domain (`bob@example.com`), or a URI (`mimi://example.com/u/bob`).
#[derive(Debug, Parser)]
#[command(name = "conclave", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Global {
    /// Profile: a name, or the path of a directory
    #[arg(long, short, global = true, env = "CONCLAVE_PROFILE", default_value = "default")]
    pub(crate) profile: String,
    /// File with the profile's passphrase [else: $CONCLAVE_PASSPHRASE, or asked for]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Answer in JSON: one object, or one a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long to try while the server cannot be reached, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
    /// Say more on standard error; twice for even more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// A line of `conclave shell`.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_version_flag = true)]
pub(crate) struct Line {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make an account, with this as its first device; after a failure, the same command goes on
    Register(Register),
    /// Devices of your account
    #[command(subcommand)]
    Device(Device),
    /// Groups
    #[command(subcommand)]
    Group(Group),
    /// Renew your own keys in a group: heals it if they were stolen
    Update {
        /// The group
        group: String,
    },
    /// Say something
    Send {
        /// The group
        group: String,
        /// What to say; `-` reads it from standard input
        text: String,
        /// Also to those of whose joining this device learns only now
        #[arg(long)]
        to_all: bool,
    },
    /// Read a group's history
    Read {
        /// The group
        group: String,
        /// At most so many, the newest
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Everything
        #[arg(long, conflicts_with = "limit")]
        all: bool,
        /// Do not ask the server first
        #[arg(long)]
        offline: bool,
    },
    /// Follow all groups, or one, until interrupted
    Listen {
        /// The group
        group: Option<String>,
    },
    /// Catch up with everything: invitations, messages, what is still to be sent
    Sync,
    /// Compare safety numbers: make sure that nobody stands between you and a user
    Verify(Verify),
    /// This device's signature key, in all of its groups
    #[command(subcommand)]
    Keys(Keys),
    /// Keying material at the server, by which others add this device to groups
    KeyPackages,
    /// Account, certificate, server and groups at a glance
    Status,
    /// What this profile is set to; with an option, sets it
    Settings {
        /// Whether members that are back are told by this device what they missed [at first: ask]
        #[arg(long, value_enum, value_name = "WHEN")]
        gap_fill: Option<GapFill>,
    },
    /// Write a group's history as JSON, an item a line
    Export {
        /// The group
        group: String,
        /// File to write [else: standard output]
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Read verbs from standard input, one a line, and carry them out on the open profile
    Shell,
    /// Completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// The manual page
    Man {
        /// Directory for the pages of all verbs [else: the main page on standard output]
        #[arg(long)]
        output: Option<PathBuf>,
    },
}

/// Where the server is.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ServerArgs {
    /// The server, e.g. https://example.com:7443
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The domain it speaks for [else: the part of the user's name after the @, or the server's host]
    #[arg(long)]
    pub(crate) domain: Option<String>,
    /// Certificate authority (PEM) of the server [else: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The Authentication Service, if it is another server
    #[arg(long, value_name = "URL")]
    pub(crate) authentication_server: Option<String>,
    /// Protect the profile with a passphrase [else: a key file, which protects it from nobody who can read it]
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// Keep the profile's key in this file, e.g. on another disk
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
    pub(crate) key_file: Option<PathBuf>,
    /// Speak without TLS, to this very machine only
    #[arg(long)]
    pub(crate) plaintext: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Register {
    /// Your name, e.g. alice@example.com
    pub(crate) user: String,
    /// This device's name
    #[arg(long, default_value = "laptop")]
    pub(crate) device: String,
    /// Invite token, where the server asks for one
    #[arg(long)]
    pub(crate) invite: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Your devices, as the server knows them
    List,
    /// On a new device: ask to be linked to your account; shows a code
    Link {
        /// Your name, e.g. alice@example.com
        user: String,
        /// This device's name
        #[arg(long, default_value = "phone")]
        device: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// On your first device: approve the new device that shows this code
    Add {
        /// The code
        code: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Save what brings your account and its groups back if your devices are lost, sealed with a passphrase of its own
    Save {
        /// File to write
        file: PathBuf,
        /// File with the passphrase [else: $CONCLAVE_RECOVERY_PASSPHRASE, or asked for]
        #[arg(long, value_name = "FILE")]
        recovery_passphrase_file: Option<PathBuf>,
    },
    /// On a wiped or new device: take your account up again from a saved file, and ask to be let into its groups again
    Restore {
        /// The file
        file: PathBuf,
        /// File with its passphrase [else: $CONCLAVE_RECOVERY_PASSPHRASE, or asked for]
        #[arg(long, value_name = "FILE")]
        recovery_passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Give this device a new signature key, in all groups: who has stolen the old one gets no further with it. Safety numbers stay. A
    /// linked device shows a code to approve on your first device
    Rotate,
    /// The signature key, and the groups that have yet to learn of it
    Show,
}

/// Whether members that are back are told what they missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GapFill {
    /// No, and nothing is said of who asks
    Never,
    /// You are told who asks, and `group fill` tells it
    Ask,
    /// Yes, whoever asks, unless another member was faster
    Always,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Make a group
    Create {
        /// Its title
        title: String,
        /// Let the server read commits and proposals, so that it refuses invalid ones and those that the group's policy
        /// does not admit (messages stay encrypted)
        #[arg(long)]
        visible: bool,
        /// The cipher suite's number, 1 or 3 [else: 1]
        #[arg(long)]
        suite: Option<u16>,
        /// Seconds that a commit which somebody cannot apply waits for another member's word until it is annulled, 10 to 86400 [else: 900]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(10..=86_400))]
        dispute_pause: Option<u64>,
    },
    /// Add users, with all their devices
    Add {
        /// The group
        group: String,
        /// Whom
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Remove users, with all their devices
    Remove {
        /// The group
        group: String,
        /// Whom
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Ask to be removed; a member that is online carries it out
    Leave {
        /// The group
        group: String,
    },
    /// Make a group anew, with another cipher suite or handshake mode; members, room and history stay
    Reinit {
        /// The group
        group: String,
        /// The cipher suite's number [else: as it is]
        #[arg(long)]
        suite: Option<u16>,
        /// Let the server read commits and proposals from then on
        #[arg(long, conflicts_with = "private")]
        visible: bool,
        /// Seal commits and proposals from then on
        #[arg(long)]
        private: bool,
    },
    /// Who is in a group
    Members {
        /// The group
        group: String,
    },
    /// The present epoch in figures to compare with other members by another way: equal for all who are in the same branch
    /// of the group
    Verify {
        /// The group
        group: String,
    },
    /// Who came and went: every change of the members and of their keys
    Log {
        /// The group
        group: String,
    },
    /// Go on without members that a frozen group has waited for in vain for a week: the others get a new group of the same room. Who is left
    /// out can be added later
    GoOn {
        /// The group
        group: String,
    },
    /// Come back into a group that this device cannot follow
    Rejoin {
        /// The group
        group: String,
        /// Whose word for the present members you believe, if this device has told you that only somebody unknown vouches for them: a
        /// device (`bob/laptop` or a URI)
        #[arg(long, value_name = "CLIENT")]
        trust: Option<String>,
    },
    /// On a device that has lost its groups (restored, or linked again under its old name): ask your other devices, and these users, to let
    /// it into all groups that they share with it. `sync` and `listen` ask again, and others, until it is back
    Recover {
        /// Whom, besides your own devices and members of the groups that a saved file named
        users: Vec<String>,
        /// Ask nobody, now or later, and give up on the groups that are not back
        #[arg(long, conflicts_with = "users", visible_alias = "stop")]
        give_up: bool,
        /// Ask nobody now: show who was asked, who is asked when again, and what is not back
        #[arg(long, conflicts_with_all = ["users", "give_up"])]
        show: bool,
    },
    /// Tell a member that is back what was said while it could not follow the group; without one, show who asks for that
    Fill {
        /// The group
        group: String,
        /// Whom: a device (`bob/laptop` or a URI), or a user of whom one device asks
        client: Option<String>,
    },
    /// Say nothing, but let the others compare what the server shows them with what it shows this device
    Heartbeat {
        /// The group
        group: String,
    },
    /// Your groups
    List,
    /// Epoch, authenticator and place of a group
    Info {
        /// The group
        group: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// Whom
    pub(crate) user: String,
    /// Compare with the text of a scanned code
    #[arg(long, value_name = "TEXT")]
    pub(crate) scan: Option<String>,
    /// Note that you compared the numbers and they are the same
    #[arg(long)]
    pub(crate) verified: bool,
    /// Accept an identity key that has changed
    #[arg(long)]
    pub(crate) accept: bool,
}
