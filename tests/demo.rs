//! The demonstration of the README, from its first step to its last: it fails if anything is not as it says.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_demonstration_comes_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_conclave-suite");
    let output = Command::new(program).arg("demo").env("TMPDIR", directory.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Everything went as it should."), "{text}");
}
