//! Words of closed lists.
//!
//! Never a word that is not in the list: what is read is one of `ALL`.

/// Writes words by their stable name and reads them back. Each type has `ALL` and `name`; the error of a wrong word is the
/// list.
#[macro_export]
macro_rules! named {
    ($($word:ty),*) => {$(
        impl ::std::fmt::Display for $word {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl ::std::str::FromStr for $word {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.into_iter().find(|word| word.name() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|word| word.name()).collect();
                    format!("expected one of {}", known.join(", "))
                })
            }
        }
    )*};
}
