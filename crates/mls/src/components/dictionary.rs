//! The extension `app_data_dictionary`: data of many components in one extension, sorted by component id.

use std::collections::BTreeMap;

use conclave_names::code_points;
use mls_rs::{ExtensionList, extension::ExtensionType};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

/// Data that is no dictionary, or a component in it that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DictionaryError {
    /// The extension does not decode.
    #[error("the app_data_dictionary does not decode")]
    Malformed,
    /// Its entries are not sorted, or one is there twice.
    #[error("the app_data_dictionary is not sorted by component")]
    Unsorted,
    /// A component does not decode.
    #[error("component {0:#06x} of the app_data_dictionary does not decode")]
    Component(u16),
}

#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
struct ComponentData {
    component_id: u16,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
struct Wire {
    component_data: Vec<ComponentData>,
}

/// The contents of an `app_data_dictionary`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AppDataDictionary {
    entries: BTreeMap<u16, Vec<u8>>,
}

impl std::fmt::Debug for AppDataDictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl AppDataDictionary {
    /// Reads the dictionary of an extension list; an absent one is empty.
    pub fn of(extensions: &ExtensionList) -> Result<Self, DictionaryError> {
        let Some(extension) = extensions.get(ExtensionType::new(code_points::EXTENSION_APP_DATA_DICTIONARY)) else {
            return Ok(Self::default());
        };
        let mut rest = extension.extension_data.as_slice();
        let wire = Wire::mls_decode(&mut rest).map_err(|_| DictionaryError::Malformed)?;
        if !rest.is_empty() {
            return Err(DictionaryError::Malformed);
        }
        let sorted = wire.component_data.is_sorted_by(|a, b| a.component_id < b.component_id);
        if !sorted {
            return Err(DictionaryError::Unsorted);
        }
        Ok(Self { entries: wire.component_data.into_iter().map(|c| (c.component_id, c.data)).collect() })
    }

    /// Adds or replaces a component.
    pub fn set(&mut self, component: u16, data: Vec<u8>) {
        self.entries.insert(component, data);
    }

    /// The data of a component.
    #[must_use]
    pub fn get(&self, component: u16) -> Option<&[u8]> {
        self.entries.get(&component).map(Vec::as_slice)
    }

    /// Decodes a component; nothing may follow it.
    pub fn decode<T: MlsDecode>(&self, component: u16) -> Result<Option<T>, DictionaryError> {
        let Some(mut rest) = self.get(component) else { return Ok(None) };
        let value = T::mls_decode(&mut rest).map_err(|_| DictionaryError::Component(component))?;
        if rest.is_empty() { Ok(Some(value)) } else { Err(DictionaryError::Component(component)) }
    }

    /// Encodes a component.
    pub fn encode<T: MlsEncode + MlsSize>(&mut self, component: u16, value: &T) -> Result<(), mls_rs_codec::Error> {
        self.set(component, value.mls_encode_to_vec()?);
        Ok(())
    }

    /// As an extension.
    pub fn to_extension(&self) -> Result<mls_rs::Extension, mls_rs_codec::Error> {
        let wire = Wire {
            component_data: self
                .entries
                .iter()
                .map(|(id, data)| ComponentData { component_id: *id, data: data.clone() })
                .collect(),
        };
        Ok(mls_rs::Extension::new(
            ExtensionType::new(code_points::EXTENSION_APP_DATA_DICTIONARY),
            wire.mls_encode_to_vec()?,
        ))
    }
}

/// Components `app_components` and `safe_aad`: which components a leaf supports, or a group requires.
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct ComponentsList {
    /// Component ids, ascending.
    pub component_ids: Vec<u16>,
}

impl AppDataDictionary {
    /// The dictionary of a leaf: what its client supports.
    pub fn for_leaf() -> Result<Self, mls_rs_codec::Error> {
        let mut dictionary = Self::default();
        dictionary.encode(
            code_points::COMPONENT_APP_COMPONENTS,
            &ComponentsList {
                component_ids: vec![code_points::COMPONENT_SAFE_AAD, code_points::COMPONENT_GROUP_PROFILE],
            },
        )?;
        dictionary.encode(
            code_points::COMPONENT_SAFE_AAD,
            &ComponentsList { component_ids: vec![code_points::COMPONENT_KEY_ROOT, code_points::COMPONENT_POSITION] },
        )?;
        Ok(dictionary)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(data: Vec<u8>) -> ExtensionList {
        let mut list = ExtensionList::new();
        list.set(mls_rs::Extension::new(ExtensionType::new(6), data));
        list
    }

    #[test]
    fn order_and_uniqueness_are_enforced() {
        let wire = |ids: &[u16]| {
            Wire { component_data: ids.iter().map(|id| ComponentData { component_id: *id, data: vec![1] }).collect() }
                .mls_encode_to_vec()
                .unwrap()
        };
        assert!(AppDataDictionary::of(&list(wire(&[1, 2, 9]))).is_ok());
        assert_eq!(AppDataDictionary::of(&list(wire(&[2, 1]))), Err(DictionaryError::Unsorted));
        assert_eq!(AppDataDictionary::of(&list(wire(&[2, 2]))), Err(DictionaryError::Unsorted));
        let mut long = wire(&[1]);
        long.push(0);
        assert_eq!(AppDataDictionary::of(&list(long)), Err(DictionaryError::Malformed));
        assert_eq!(AppDataDictionary::of(&ExtensionList::new()), Ok(AppDataDictionary::default()));
    }

    #[test]
    fn a_component_with_trailing_bytes_is_refused() {
        let mut dictionary = AppDataDictionary::default();
        dictionary.set(7, vec![0, 1, 0]);
        assert_eq!(dictionary.decode::<u16>(7), Err(DictionaryError::Component(7)));
        assert_eq!(dictionary.decode::<u16>(8), Ok(None));
    }

    proptest! {
        #[test]
        fn dictionaries_round_trip(entries in prop::collection::btree_map(any::<u16>(), prop::collection::vec(any::<u8>(), 0..50), 0..8)) {
            let mut dictionary = AppDataDictionary::default();
            for (id, data) in entries {
                dictionary.set(id, data);
            }
            let mut extensions = ExtensionList::new();
            extensions.set(dictionary.to_extension().unwrap());
            prop_assert_eq!(AppDataDictionary::of(&extensions).unwrap(), dictionary);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = AppDataDictionary::of(&list(bytes));
        }
    }
}
