//! Blobs over the wire: staged in parts, resumed, checked.

use conclave_channel::chain::entry_hash;
use conclave_names::{Hash, limits};
use conclave_protocol::{Code, v1};
use conclave_server::Server;

use super::client::*;

async fn stage(session: &Session, hash: Hash, blob: &[u8], from: usize) -> u64 {
    let to = blob.len().min(from + limits::BLOB_CHUNK);
    let data = blob[from..to].to_vec();
    let message = v1::StageBlobRequest { hash: hash.to_vec(), size: blob.len() as u64, offset: from as u64, data };
    session.stage(&message).await.unwrap().into_inner().received
}

async fn read(client: &Client, hash: Hash, offset: u64) -> Vec<u8> {
    let request = v1::ReadBlobRequest { hash: hash.to_vec(), offset };
    let mut parts = client.delivery().read_blob(request).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        found.extend(part.data);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_on_where_it_was_cut_in_both_directions() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    let blob: Vec<u8> = (0..u32::try_from(3 * limits::BLOB_CHUNK + 777).unwrap())
        .map(|n| n.wrapping_mul(31).to_be_bytes()[2])
        .collect();
    let hash = entry_hash(&blob);
    assert_eq!(stage(&session, hash, &blob, 0).await, limits::BLOB_CHUNK as u64);
    assert_eq!(stage(&session, hash, &blob, limits::BLOB_CHUNK).await, 2 * limits::BLOB_CHUNK as u64);
    let channel = session.channel;
    running.shutdown().await;

    // Another process of the server, another session: the digest goes on as well.
    let running = Server::start(config(directory.path())).await.unwrap();
    let client = Client::of(&running).await;
    let session = client.session(1, channel).await;
    let received = usize::try_from(stage(&session, hash, &blob, 0).await).unwrap();
    assert_eq!(received, 2 * limits::BLOB_CHUNK);
    let request = v1::ReadBlobRequest { hash: hash.to_vec(), offset: 0 };
    refused(client.delivery().read_blob(request).await.map(|reply| reply.map(drop)), Code::BlobUnknown);
    let received = usize::try_from(stage(&session, hash, &blob, received).await).unwrap();
    // One wrong byte in the last part, and the blob is none.
    let mut wrong = blob.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let message = v1::StageBlobRequest {
        hash: hash.to_vec(),
        size: blob.len() as u64,
        offset: received as u64,
        data: wrong[received..].to_vec(),
    };
    refused(session.stage(&message).await, Code::BlobInvalid);
    assert_eq!(stage(&session, hash, &blob, received).await, blob.len() as u64);
    assert_eq!(read(&client, hash, 0).await, blob);
    let half = blob.len() / 2;
    assert_eq!(read(&client, hash, half as u64).await, blob[half..]);
    running.shutdown().await;
}
