//! [`term!`](crate::term).

/// Writes a [`Term`](crate::Term) down, nearly as Erlang would.
///
/// * bare words and `'c'` are atoms; `atom "any text"` is one of any text (of at most 255
///   characters);
/// * text in double quotes is a **binary**, as in Elixir; `charlist "text"` is a list;
/// * numbers, `true`, `false`; `-1`;
/// * `{a, b}` tuples, `[a, b]` and `[a, b | tail]` lists, `#{key => value}` maps;
/// * `(expression)`: anything of Rust with `Into<Term>`.
///
/// A map with the same key twice has the last value.
///
/// ```
/// use meshx_etf::term;
/// let n = 5_i64;
/// let term = term!({ok, (n), [1 | tail], #{1 => {}, "key" => nil}, atom "Elixir.X", charlist "hi"});
/// assert_eq!(
///     term.to_string(),
///     r#"{ok,5,[1|tail],#{1 => {},<<"key">> => nil},'Elixir.X',"hi"}"#
/// );
/// ```
#[macro_export]
macro_rules! term {
    // Elements of a sequence: `@items [done] rest`
    (@items [$($done:expr,)*]) => { vec![$($done,)*] };
    (@items [$($done:expr,)*] , $($rest:tt)*) => { $crate::term!(@items [$($done,)*] $($rest)*) };
    (@items [$($done:expr,)*] atom $text:literal $($rest:tt)*) => {
        $crate::term!(@items [$($done,)* $crate::term!(atom $text),] $($rest)*)
    };
    (@items [$($done:expr,)*] charlist $text:literal $($rest:tt)*) => {
        $crate::term!(@items [$($done,)* $crate::term!(charlist $text),] $($rest)*)
    };
    (@items [$($done:expr,)*] - $number:literal $($rest:tt)*) => {
        $crate::term!(@items [$($done,)* $crate::term!(- $number),] $($rest)*)
    };
    (@items [$($done:expr,)*] # $map:tt $($rest:tt)*) => {
        $crate::term!(@items [$($done,)* $crate::term!(# $map),] $($rest)*)
    };
    (@items [$($done:expr,)*] $item:tt $($rest:tt)*) => {
        $crate::term!(@items [$($done,)* $crate::term!($item),] $($rest)*)
    };
    // A list, which may have a tail: `@list [before] rest`
    (@list [$($before:tt)*]) => {
        $crate::Term::List($crate::term!(@items [] $($before)*))
    };
    (@list [$($before:tt)*] | $($tail:tt)+) => {
        $crate::Term::list_ending($crate::term!(@items [] $($before)*), $crate::term!($($tail)+))
    };
    (@list [$($before:tt)*] $next:tt $($rest:tt)*) => {
        $crate::term!(@list [$($before)* $next] $($rest)*)
    };
    // Pairs of a map: `@map pairs [key] rest`, then `@value pairs key [value] rest`
    (@map $pairs:ident []) => {};
    (@map $pairs:ident [$($key:tt)+] => $($rest:tt)+) => {
        $crate::term!(@value $pairs [$($key)+] [] $($rest)+)
    };
    (@map $pairs:ident [$($key:tt)*] $next:tt $($rest:tt)*) => {
        $crate::term!(@map $pairs [$($key)* $next] $($rest)*)
    };
    (@value $pairs:ident [$($key:tt)+] [$($value:tt)+]) => {
        $pairs.push(($crate::term!($($key)+), $crate::term!($($value)+)));
    };
    (@value $pairs:ident [$($key:tt)+] [$($value:tt)+] , $($rest:tt)*) => {
        $pairs.push(($crate::term!($($key)+), $crate::term!($($value)+)));
        $crate::term!(@map $pairs [] $($rest)*)
    };
    (@value $pairs:ident [$($key:tt)+] [$($value:tt)*] $next:tt $($rest:tt)*) => {
        $crate::term!(@value $pairs [$($key)+] [$($value)* $next] $($rest)*)
    };

    (atom $text:literal) => { $crate::Term::atom($text) };
    (charlist $text:literal) => { $crate::Term::charlist($text) };
    ({ $($items:tt)* }) => { $crate::Term::Tuple($crate::term!(@items [] $($items)*)) };
    ([ $($items:tt)* ]) => { $crate::term!(@list [] $($items)*) };
    (# { $($pairs:tt)* }) => {{
        #[allow(unused_mut, reason = "an empty map")]
        let mut pairs: Vec<($crate::Term, $crate::Term)> = Vec::new();
        $crate::term!(@map pairs [] $($pairs)*);
        $crate::Term::Map(pairs.into_iter().collect())
    }};
    (($value:expr)) => { $crate::Term::from($value) };
    (true) => { $crate::Term::from(true) };
    (false) => { $crate::Term::from(false) };
    (- $number:literal) => { $crate::macros::Literal::term(-$number) };
    ($literal:literal) => { $crate::macros::Literal::term($literal) };
    ($name:ident) => { $crate::Term::atom(stringify!($name)) };
}

/// A literal in [`term!`](crate::term).
#[doc(hidden)]
pub trait Literal {
    fn term(self) -> crate::Term;
}

impl Literal for &str {
    fn term(self) -> crate::Term {
        self.into()
    }
}

impl Literal for char {
    fn term(self) -> crate::Term {
        crate::Term::atom(self.encode_utf8(&mut [0; 4]))
    }
}

impl Literal for i64 {
    fn term(self) -> crate::Term {
        self.into()
    }
}

impl Literal for f64 {
    fn term(self) -> crate::Term {
        self.into()
    }
}
