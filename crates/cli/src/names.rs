//! Who and what people mean.

use conclave_client::{Client, GroupSummary};
use conclave_names::{ClientUri, Domain, GroupUri, UserUri};

use crate::error::CliError;

/// `bob`, `bob@example.com` or `mimi://example.com/u/bob`.
pub(crate) fn user(text: &str, own: &Domain) -> Result<UserUri, CliError> {
    if text.starts_with("mimi://") {
        return Ok(text.parse()?);
    }
    Ok(match text.split_once('@') {
        Some((name, domain)) => UserUri::new(domain.parse()?, name)?,
        None => UserUri::new(own.clone(), text)?,
    })
}

/// `bob/laptop`, `bob@example.com/laptop` or `mimi://example.com/d/bob/laptop`; none if it names no device.
pub(crate) fn device(text: &str, own: &Domain) -> Result<Option<ClientUri>, CliError> {
    if text.starts_with("mimi://") {
        return Ok(if text.contains("/d/") { Some(text.parse()?) } else { None });
    }
    match text.split_once('/') {
        Some((name, device)) => Ok(Some(user(name, own)?.client(device)?)),
        None => Ok(None),
    }
}

/// A user as people write it.
pub(crate) fn show(user: &UserUri) -> String {
    format!("{}@{}", user.name(), user.domain())
}

/// The group that a text means: a title, a URI, or the beginning of its random part.
pub(crate) fn group(client: &Client, text: &str) -> Result<GroupUri, CliError> {
    let groups = client.groups()?;
    Ok(client.current(&find(&groups, text)?)?)
}

fn find(groups: &[GroupSummary], text: &str) -> Result<GroupUri, CliError> {
    let exact = |group: &&GroupSummary| group.title == text || group.name.to_string() == text;
    let begins = |group: &&GroupSummary| text.len() >= 4 && group.name.name().starts_with(text);
    let mut found: Vec<_> = groups.iter().filter(exact).collect();
    if found.is_empty() {
        found = groups.iter().filter(begins).collect();
    }
    // One that was made anew has the title of the one in which it goes on.
    if found.len() > 1 {
        found.retain(|group| group.successor.is_none());
    }
    match found.as_slice() {
        [] => Err(CliError::NoGroup(text.to_owned())),
        [group] => Ok(group.name.clone()),
        _ => Err(CliError::ManyGroups(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use conclave_client::Status;
    use conclave_names::Epoch;

    use super::*;

    fn summary(random: &str, title: &str) -> GroupSummary {
        GroupSummary {
            name: format!("mimi://example.com/g/{random}").parse().unwrap(),
            room: "mimi://example.com/r/x".parse().unwrap(),
            title: title.into(),
            hub: "example.com".parse().unwrap(),
            epoch: Epoch(0),
            members: 1,
            status: Status::Active,
            may_return: false,
            successor: None,
            predecessor: None,
        }
    }

    #[test]
    fn users_are_found_in_every_spelling() {
        let own = "example.com".parse().unwrap();
        for text in ["bob", "bob@example.com", "mimi://example.com/u/bob"] {
            assert_eq!(user(text, &own).unwrap().to_string(), "mimi://example.com/u/bob");
        }
        assert!(user("Bob Smith", &own).is_err());
        assert!(user("bob@", &own).is_err());
    }

    #[test]
    fn groups_are_found_by_title_uri_or_beginning_and_never_guessed() {
        let groups = [summary("aaaa1111", "Club"), summary("aaaa2222", "Pub"), summary("bbbb1111", "Pub")];
        assert_eq!(find(&groups, "Club").unwrap(), groups[0].name);
        assert_eq!(find(&groups, "mimi://example.com/g/aaaa2222").unwrap(), groups[1].name);
        assert_eq!(find(&groups, "aaaa1").unwrap(), groups[0].name);
        assert!(matches!(find(&groups, "Pub"), Err(CliError::ManyGroups(_))));
        assert!(matches!(find(&groups, "aaaa"), Err(CliError::ManyGroups(_))));
        assert!(matches!(find(&groups, "bbb"), Err(CliError::NoGroup(_))), "too short to be meant");
    }
}
