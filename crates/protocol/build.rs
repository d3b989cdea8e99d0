//! Compiles `proto/` with protox, so that no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 4] = [
    "conclave/v1/common.proto",
    "conclave/v1/authentication.proto",
    "conclave/v1/directory.proto",
    "conclave/v1/delivery.proto",
];

/// Messages with secrets: their `Debug` is written by hand.
const SECRET: [&str; 3] =
    [".conclave.v1.OpenSessionResponse", ".conclave.v1.CreateInboxRequest", ".conclave.v1.RegisterUserRequest"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .skip_debug(SECRET)
        .compile_fds(descriptors)?;
    Ok(())
}
