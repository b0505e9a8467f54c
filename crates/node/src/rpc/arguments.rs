//! The arguments of a function.

use meshx_etf::{Term, TypedError, from_term, to_term};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The arguments of a function: a tuple, one element for each, or terms.
///
/// ```
/// use meshx_node::Arguments;
/// assert_eq!((1, "two").into_terms()?.len(), 2);
/// assert_eq!(().into_terms()?, []);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Arguments: Send {
    /// They as terms. An error is a value that has no form in Erlang's terms.
    fn into_terms(self) -> Result<Vec<Term>, TypedError>;
}

/// Arguments that a function of a [`crate::RpcTable`] can take: a tuple, one element for each.
pub trait Parameters: Sized + Send + 'static {
    /// How many there are.
    const ARITY: u8;

    /// Reads them; there are [`Parameters::ARITY`].
    fn of_terms(terms: &[Term]) -> Result<Self, TypedError>;
}

impl Arguments for Vec<Term> {
    fn into_terms(self) -> Result<Vec<Term>, TypedError> {
        Ok(self)
    }
}

impl Arguments for &[Term] {
    fn into_terms(self) -> Result<Vec<Term>, TypedError> {
        Ok(self.to_vec())
    }
}

impl Arguments for () {
    fn into_terms(self) -> Result<Vec<Term>, TypedError> {
        Ok(Vec::new())
    }
}

impl Parameters for () {
    const ARITY: u8 = 0;

    fn of_terms(_: &[Term]) -> Result<Self, TypedError> {
        Ok(())
    }
}

macro_rules! tuples {
    ($($arity:literal: $($name:ident $index:tt),+;)+) => {
        $(
            impl<$($name: Serialize + Send),+> Arguments for ($($name,)+) {
                fn into_terms(self) -> Result<Vec<Term>, TypedError> {
                    Ok(vec![$(to_term(&self.$index)?),+])
                }
            }

            impl<$($name: DeserializeOwned + Send + 'static),+> Parameters for ($($name,)+) {
                const ARITY: u8 = $arity;

                fn of_terms(terms: &[Term]) -> Result<Self, TypedError> {
                    let mut terms = terms.iter();
                    // One that is missing is read as what fits nothing that is wanted.
                    let missing = Term::nil();
                    Ok(($(from_term::<$name>(terms.next().unwrap_or(&missing))?,)+))
                }
            }
        )+
    };
}

tuples! {
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}
