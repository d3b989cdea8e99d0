use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A store of rows.
#[derive(Default)]
struct Rowed(BTreeMap<(Room, Vec<u8>), Vec<u8>>);

impl Rowed {
    /// Applies writes; gives the bytes that were put.
    fn apply(&mut self, writes: Vec<Write>) -> usize {
        let mut bytes = 0;
        for write in writes {
            match write {
                Write::Put { room, key, value } => {
                    bytes += value.len();
                    self.0.insert((room, key), value.to_vec());
                }
                Write::Delete { room, key } => {
                    self.0.remove(&(room, key));
                }
                Write::Message(_) => {}
            }
        }
        bytes
    }
}

impl Rows for Rowed {
    type Error = std::convert::Infallible;

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Self::Error> {
        Ok(self.0.get(&(room, key.to_vec())).cloned().map(Zeroizing::new))
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, Self::Error> {
        let of = |(in_room, key): &(Room, Vec<u8>)| *in_room == room && key.starts_with(prefix);
        Ok(self
            .0
            .iter()
            .filter(|(place, _)| of(place))
            .map(|((_, key), value)| (key.clone(), Zeroizing::new(value.clone())))
            .collect())
    }
}

const PREFIX: &[u8] = b"group\0";
const ROOMS: [Room; 2] = [Room::GROUP, Room::INTENT];

fn key(name: u8) -> Vec<u8> {
    [PREFIX, &[name]].concat()
}

fn put(room: Room, name: u8, value: &[u8]) -> Write {
    Write::Put { room, key: key(name), value: Zeroizing::new(value.to_vec()) }
}

/// Bytes that look random, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 32);
    while bytes.len() < length {
        state = state.wrapping_add(1);
        bytes.extend_from_slice(entry_hash(&state.to_be_bytes()).as_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn a_small_change_of_a_long_value_writes_little() {
    let (mut store, mut pieces) = (Rowed::default(), Pieces::none(PREFIX.to_vec()));
    let mut value = noise(1, 2_000_000);
    let all = store.apply(pieces.split(vec![put(Room::GROUP, 1, &value)]));
    assert!((2_000_000..2_020_000).contains(&all), "{all}");
    value.splice(700_000..700_003, noise(2, 50));
    value[1_500_000] ^= 1;
    let some = store.apply(pieces.split(vec![put(Room::GROUP, 1, &value)]));
    assert!(some < 300_000, "{some}");
    // The same value again in another row is only a list.
    let list = store.apply(pieces.split(vec![put(Room::INTENT, 1, &value)]));
    assert!(list < 10_000, "{list}");
    assert_eq!(*get(&store, PREFIX, Room::GROUP, &key(1)).unwrap().unwrap(), value);
    assert_eq!(*get(&store, PREFIX, Room::INTENT, &key(1)).unwrap().unwrap(), value);
}

/// Pieces that are known from the value before are taken for what they are without hashing: the list is the same as that of
/// somebody who knows nothing.
#[test]
fn what_is_known_is_cut_as_if_it_were_not() {
    let mut value = noise(1, 400_000);
    // Stretches without an end of a piece in them, and the same bytes in several places.
    value.extend(std::iter::repeat_n(0, 3 * LONGEST));
    value.extend(noise(1, 100_000));
    let mut changed = value.clone();
    changed.splice(50_000..50_010, noise(3, 90));
    changed.truncate(650_000);
    let mut longer = value.clone();
    longer.extend(noise(4, 10_000));
    let list = |pieces: &mut Pieces, value: &[u8]| {
        let writes = pieces.split(vec![put(Room::GROUP, 1, value)]);
        let list = writes.into_iter().find_map(|write| match write {
            Write::Put { room: Room::LONG, value, .. } => Some(value),
            _ => None,
        });
        list.unwrap()
    };
    let none = || Pieces::none(PREFIX.to_vec());
    let mut pieces = none();
    for next in [&value, &changed, &longer, &value[100_000..].to_vec(), &changed] {
        assert_eq!(list(&mut pieces, next), list(&mut none(), next));
    }
}

#[test]
fn a_missing_piece_is_damage_and_no_other_value() {
    let (mut store, mut pieces) = (Rowed::default(), Pieces::none(PREFIX.to_vec()));
    store.apply(pieces.split(vec![put(Room::GROUP, 1, &noise(1, LONG))]));
    let piece = store.0.keys().find(|(room, _)| *room == Room::PIECE).unwrap().clone();
    store.0.remove(&piece);
    assert!(matches!(get(&store, PREFIX, Room::GROUP, &key(1)), Err(LoadError::Record(RecordError::Damaged))));
}

#[test]
fn nothing_of_a_group_stays_behind() {
    let (mut store, mut pieces) = (Rowed::default(), Pieces::none(PREFIX.to_vec()));
    store.apply(pieces.split(vec![put(Room::GROUP, 1, &noise(1, LONG)), put(Room::INTENT, 1, &noise(1, LONG + 1))]));
    let mut other = Pieces::none(b"other\0".to_vec());
    let kept = Write::Put { room: Room::GROUP, key: b"other\0".to_vec(), value: Zeroizing::new(noise(1, LONG)) };
    store.apply(other.split(vec![kept]));
    let mut writes = Vec::new();
    delete(&store, PREFIX, &ROOMS, &mut writes).unwrap();
    store.apply(writes);
    assert!(
        store.0.keys().all(|(room, key)| key.get(usize::from(*room == Room::LONG)..).unwrap().starts_with(b"other"))
    );
    assert!(get(&store, b"other\0", Room::GROUP, b"other\0").unwrap().is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Put(Room, u8, u64, usize),
    Delete(Room, u8),
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let room = prop::sample::select(ROOMS.to_vec());
    // Few seeds, so that values share pieces.
    let length = prop_oneof![0..2_000_usize, LONG - 2..LONG + 2, LONG..3 * LONG];
    prop_oneof![
        4 => (room.clone(), 0..3_u8, 0..3_u64, length).prop_map(|(room, name, seed, length)| Step::Put(room, name, seed, length)),
        1 => (room, 0..3_u8).prop_map(|(room, name)| Step::Delete(room, name)),
        1 => Just(Step::Reload),
    ]
}

proptest! {
    #[test]
    fn rows_in_pieces_are_like_rows(steps in prop::collection::vec(step(), 0..20)) {
        let (mut store, mut pieces) = (Rowed::default(), Pieces::none(PREFIX.to_vec()));
        let mut expected: BTreeMap<(Room, Vec<u8>), Vec<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(room, name, seed, length) => {
                    let value = noise(seed, length);
                    store.apply(pieces.split(vec![put(room, name, &value)]));
                    expected.insert((room, key(name)), value);
                }
                Step::Delete(room, name) => {
                    store.apply(pieces.split(vec![Write::Delete { room, key: key(name) }]));
                    expected.remove(&(room, key(name)));
                }
                Step::Reload => pieces = Pieces::load(&store, PREFIX.to_vec(), &ROOMS).unwrap(),
            }
            for room in ROOMS {
                let found = scan(&store, PREFIX, room, PREFIX).unwrap();
                let found: Vec<_> = found.into_iter().map(|(key, value)| (key, value.to_vec())).collect();
                let rows = expected.iter().filter(|((of, _), _)| *of == room);
                prop_assert_eq!(found, rows.map(|((_, key), value)| (key.clone(), value.clone())).collect::<Vec<_>>());
            }
            // No piece is there that no list names.
            let there = store.0.keys().filter(|(room, _)| *room == Room::PIECE).count();
            prop_assert_eq!(there, pieces.uses.len());
        }
    }
}
