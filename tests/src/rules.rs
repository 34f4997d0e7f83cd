//! Names the rules of the standards that a test proves.

/// The rules file, next to the conformance tests.
pub const RULES: &str = include_str!("../conformance/rules.toml");

/// True if a rule of that id is in the file.
pub fn is_known(id: &str) -> bool {
    RULES.contains(&format!("id = \"{id}\"\n"))
}

/// Says at the head of a test which rules it proves; an unknown id fails the test.
#[macro_export]
macro_rules! conforms {
    ($($id:literal),+ $(,)?) => {
        $(assert!($crate::rules::is_known($id), "{} is no rule in rules.toml", $id);)+
    };
}
