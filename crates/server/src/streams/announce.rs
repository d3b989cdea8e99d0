//! Reading a channel for all of its streams.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use conclave_delivery::Subscription;
use conclave_names::{ChannelId, Seq};

use super::{Source, Streams, feed::Feed, lock};

/// Places for which one round reads. Who stands elsewhere reads for itself.
const PLACES: usize = 4;

/// Reads what is new in a channel for those who stand at the same place, and wakes all of its streams; again for as long
/// as there is news.
pub(super) async fn announce(streams: Streams, channel: ChannelId, feed: Arc<Feed>, source: Source) {
    while feed.round() {
        let mut places: HashMap<(Subscription, Seq), usize> = HashMap::new();
        for stream in streams.watching(&channel) {
            if let Some(carried) = lock(&stream.channels).get(&channel) {
                *places.entry((carried.subscription, carried.after)).or_default() += 1;
            }
        }
        let mut places: Vec<_> = places.into_iter().filter(|(_, streams)| *streams > 1).collect();
        places.sort_unstable_by_key(|(_, streams)| std::cmp::Reverse(*streams));
        // Many places may lead to the same end.
        let ends: HashSet<_> = places
            .into_iter()
            .take(PLACES)
            .map(|((subscription, after), _)| (subscription, feed.end(&subscription, after)))
            .collect();
        for (subscription, mut after) in ends {
            loop {
                // Who finds nothing in the feed meets the same failure, and tells its reader.
                let Ok(piece) = source.read(&channel, subscription, after).await else { break };
                feed.keep(&subscription, after, &piece);
                if piece.event.is_none() || piece.ended.is_some() || !piece.more {
                    break;
                }
                after = piece.position;
            }
        }
        for stream in streams.watching(&channel) {
            stream.tell(channel);
        }
    }
}
