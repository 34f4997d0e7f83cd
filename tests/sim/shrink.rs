//! The smallest part of a list of actions that still breaks the same promise.

/// Leaves out what can be left out (delta debugging): halves first, single ones last. `fails` runs what it is given.
pub fn shrink<T: Clone>(list: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut list = list.to_vec();
    let mut chunk = list.len().div_ceil(2);
    while chunk > 0 && !list.is_empty() {
        let (mut at, mut dropped) = (0, false);
        while at < list.len() {
            let end = (at + chunk).min(list.len());
            let rest: Vec<T> = list[..at].iter().chain(&list[end..]).cloned().collect();
            if fails(&rest) {
                (list, dropped) = (rest, true);
            } else {
                at = end;
            }
        }
        chunk = match (chunk, dropped) {
            (1, false) => 0,
            (1, true) => 1,
            (more, _) => more / 2,
        };
    }
    list
}

#[test]
fn what_is_not_needed_is_left_out() {
    let list: Vec<u32> = (0..100).collect();
    let both = |rest: &[u32]| rest.contains(&17) && rest.contains(&71);
    assert_eq!(shrink(&list, both), [17, 71]);
}

#[test]
fn a_list_of_which_nothing_is_needed_becomes_empty() {
    assert!(shrink(&[1, 2, 3], |_| true).is_empty());
}
