use std::{env, process::Command};

use super::*;

/// Names the profile that a child process is to open.
const CHILD: &str = "CONCLAVE_TEST_CHILD_PROFILE";

fn quick() -> Kdf {
    Kdf { memory_kib: 1024, passes: 1, lanes: 1 }
}

fn passphrase() -> NewKey {
    NewKey::Passphrase(Zeroizing::new("correct horse".into()), quick())
}

fn new(key: NewKey) -> NewProfile {
    NewProfile::new("https://example.com:8443", "example.com".parse().unwrap(), key)
}

#[cfg(unix)]
fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_profile_comes_back_as_it_was_made() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/b");
    assert_eq!(Profile::open(&dir).unwrap_err(), ProfileError::Absent(dir.clone()));
    let mut wanted = new(passphrase());
    wanted.ca_pem = Some(b"pem".to_vec());
    let (made, key) = Profile::create(&dir, wanted).unwrap();
    let config = made.config().clone();
    drop(made);
    let opened = Profile::open(&dir).unwrap();
    assert_eq!(opened.config(), &config);
    assert_eq!(opened.ca_pem().unwrap().unwrap(), b"pem");
    assert!(opened.needs_passphrase());
    assert_eq!(*opened.unlock(Some("correct horse")).unwrap().pragma(), *key.pragma());
    drop(opened);
    assert_eq!(Profile::create(&dir, new(passphrase())).unwrap_err(), ProfileError::Exists(dir));
}

#[test]
fn a_wrong_or_missing_passphrase_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let (profile, _) = Profile::create(temp.path(), new(passphrase())).unwrap();
    assert_eq!(profile.unlock(Some("correct house")).unwrap_err(), ProfileError::WrongPassphrase);
    assert_eq!(profile.unlock(None).unwrap_err(), ProfileError::PassphraseNeeded);
}

#[test]
fn the_default_derivation_is_the_documented_one() {
    assert_eq!(Kdf::default(), Kdf { memory_kib: 65536, passes: 3, lanes: 1 });
    for bad in [Kdf { memory_kib: 64, ..quick() }, Kdf { passes: 0, ..quick() }, Kdf { lanes: 17, ..quick() }] {
        assert_eq!(StoreKey::derive("x", &bad, &[0; 16]).unwrap_err(), ProfileError::Kdf);
    }
}

/// Does nothing by itself: another test runs it in a process of its own.
#[test]
fn child_that_opens_a_profile() {
    if let Ok(dir) = env::var(CHILD) {
        match Profile::open(dir.as_ref()) {
            Ok(_) => println!("child: opened"),
            Err(e) => println!("child: {e}"),
        }
    }
}

#[test]
fn a_second_process_is_refused_until_the_first_ends() {
    let temp = tempfile::tempdir().unwrap();
    let child = || {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "profile::tests::child_that_opens_a_profile", "--nocapture"])
            .env(CHILD, temp.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (profile, key) = Profile::create(temp.path(), new(passphrase())).unwrap();
    assert!(child().contains("is used by another process"));
    // Nor does it help to drop the profile while its store is open.
    let store = crate::store::Store::open(&profile, &key).unwrap();
    drop(profile);
    assert!(child().contains("is used by another process"));
    assert_eq!(Profile::open(temp.path()).unwrap_err(), ProfileError::InUse(temp.path().to_owned()));
    drop(store);
    assert!(child().contains("child: opened"));
}

#[test]
fn another_profiles_key_file_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("key");
    let (profile, _) = Profile::create(&temp.path().join("a"), new(NewKey::File(Some(path.clone())))).unwrap();
    assert!(profile.unlock(None).is_ok());
    // An existing key file is used, not replaced.
    let (other, _) = Profile::create(&temp.path().join("b"), new(NewKey::File(Some(path.clone())))).unwrap();
    assert_eq!(*profile.unlock(None).unwrap().pragma(), *other.unlock(None).unwrap().pragma());
    fs::write(&path, [7; 32]).unwrap();
    assert_eq!(profile.unlock(None).unwrap_err(), ProfileError::WrongKeyFile(path.clone()));
    for wrong in [31, 33] {
        fs::write(&path, vec![7; wrong]).unwrap();
        assert!(matches!(profile.unlock(None), Err(ProfileError::Damaged { .. })));
    }
}

#[cfg(unix)]
#[test]
fn what_is_made_is_closed_to_others() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("p");
    fs::create_dir(&dir).unwrap();
    chmod(&dir, 0o755);
    let (_profile, _) = Profile::create(&dir, new(NewKey::File(None))).unwrap();
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[cfg(unix)]
#[test]
fn loose_permissions_are_refused_with_the_remedy() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("p");
    let (profile, _) = Profile::create(&dir, new(NewKey::File(None))).unwrap();
    for loose in [0o640, 0o604, 0o660] {
        chmod(&dir.join(KEY_FILE), loose);
        let error = profile.unlock(None).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    chmod(&dir.join(KEY_FILE), 0o400);
    assert!(profile.unlock(None).is_ok());
    drop(profile);
    chmod(&dir, 0o750);
    let error = Profile::open(&dir).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn a_newer_or_damaged_profile_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    drop(Profile::create(temp.path(), new(passphrase())).unwrap());
    let path = temp.path().join(CONFIG);
    let text = fs::read_to_string(&path).unwrap();
    // A newer format may have fields that this version does not know.
    let newer = text.replace("version = 1", "version = 2\nsurprise = true");
    fs::write(&path, newer).unwrap();
    let expected = ProfileError::Newer { path: path.clone(), found: 2, known: 1 };
    assert_eq!(Profile::open(temp.path()).unwrap_err(), expected);
    for damaged in ["", "version = 1", "version = \"one\"", &text.replace("example.com", "..")] {
        fs::write(&path, damaged).unwrap();
        assert!(matches!(Profile::open(temp.path()), Err(ProfileError::Damaged { .. })), "{damaged}");
    }
}

#[test]
fn other_files_are_left_alone_and_a_torn_attempt_is_repeated() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join(CONFIG_NEW), "half").unwrap();
    fs::write(temp.path().join(KEY_FILE), "half").unwrap();
    drop(Profile::create(temp.path(), new(NewKey::File(None))).unwrap());
    fs::remove_file(temp.path().join(CONFIG)).unwrap();
    fs::write(temp.path().join(DATABASE), "what somebody wrote").unwrap();
    let error = Profile::create(temp.path(), new(NewKey::File(None))).unwrap_err();
    assert!(matches!(error, ProfileError::Occupied { ref found, .. } if found == DATABASE), "{error}");
}

#[test]
fn debug_prints_no_key() {
    assert_eq!(format!("{:?}", StoreKey::derive("x", &quick(), &[0; 16]).unwrap()), "StoreKey(..)");
}
