//! The verbs.

mod device;
mod group;
mod info;
mod keys;
mod messages;
mod recovery;
mod register;
mod settings;
mod verify;

use clap::CommandFactory as _;

pub(crate) use settings::code_of as fill_code;

use crate::{
    args::{Args, Verb},
    error::CliError,
    output::Output,
    profile::Context,
    shell,
};

pub(crate) async fn run(verb: Verb, context: &mut Context, output: &Output) -> Result<(), CliError> {
    match verb {
        Verb::Register(args) => register::run(args, context, output).await,
        Verb::Device(verb) => device::run(verb, context, output).await,
        Verb::Group(verb) => group::run(verb, context, output).await,
        Verb::Update { group } => group::update(&group, context, output).await,
        Verb::Send { group, text, to_all } => messages::send(&group, &text, to_all, context, output).await,
        Verb::Read { group, limit, all, offline } => {
            messages::read(&group, (!all).then_some(limit), offline, context, output).await
        }
        Verb::Listen { group } => messages::listen(group.as_deref(), context, output).await,
        Verb::Sync => messages::sync(context, output).await,
        Verb::Verify(args) => verify::run(args, context, output).await,
        Verb::Keys(verb) => keys::run(&verb, context, output).await,
        Verb::KeyPackages => info::key_packages(context, output).await,
        Verb::Status => info::status(context, output).await,
        Verb::Settings { gap_fill } => settings::run(gap_fill, context, output),
        Verb::Export { group, output: file } => messages::export(&group, file, context, output),
        Verb::Shell => shell::run(context, output).await,
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "conclave", &mut std::io::stdout());
            Ok(())
        }
        Verb::Man { output: directory } => info::man(directory),
    }
}
