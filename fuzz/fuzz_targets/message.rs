//! What members say to one another: the frame and the content of a message.
#![no_main]

use conclave_mls::{content::Content, frame::Frame};
use conclave_names::{ClientUri, GroupUri, UserUri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = Frame::parse(data) {
        assert_eq!(frame.to_bytes().ok().as_deref(), Some(data));
        let _ = Content::parse(&frame.content);
    }
    if let Ok(content) = Content::parse(data) {
        // Extensions and parts that this version passes over are not written again, so only the parsed half returns.
        assert_eq!(Content::parse(&content.to_bytes()).as_ref(), Ok(&content));
        let _ = content.as_text();
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(uri) = text.parse::<UserUri>() {
            assert_eq!(uri.to_string(), text);
        }
        let _ = text.parse::<ClientUri>();
        let _ = text.parse::<GroupUri>();
    }
});
