//! The folder that `avouch rules new` writes: small, commented, and in order.
//!
//! Never more than a beginning: whoever has it changes it.

/// Its files: name and text.
pub const STARTER: [(&str, &str); 4] = [
    ("resources.toml", include_str!("../starter/resources.toml")),
    ("presets.toml", include_str!("../starter/presets.toml")),
    ("rules.cedar", include_str!("../starter/rules.cedar")),
    ("examples.toml", include_str!("../starter/examples.toml")),
];
