//! The functions that Kubernetes and Flux add to CEL.

use cel::{
    Env, ExecutionError, Value as Cel,
    common::{
        functions::Function,
        types::{DYN_TYPE, LIST_TYPE, STRING_TYPE, Type},
        value::{CowVal, Val},
    },
    extensions,
    objects::Opaque,
};
use std::{cmp::Ordering, sync::Arc};

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The language with everything that is known here.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    let globals: [(&str, Vec<Type>, Function); 5] = [
        ("sets.contains", vec![LIST_TYPE, LIST_TYPE], sets_contains),
        ("sets.equivalent", vec![LIST_TYPE, LIST_TYPE], sets_equivalent),
        ("sets.intersects", vec![LIST_TYPE, LIST_TYPE], sets_intersect),
        ("quantity", vec![STRING_TYPE], quantity),
        ("isQuantity", vec![STRING_TYPE], is_quantity),
    ];
    let members: [(&str, Type, Vec<Type>, Function); 17] = [
        ("sum", LIST_TYPE, vec![], sum),
        ("min", LIST_TYPE, vec![], min),
        ("max", LIST_TYPE, vec![], max),
        ("isSorted", LIST_TYPE, vec![], is_sorted),
        ("indexOf", LIST_TYPE, vec![DYN_TYPE], index_of),
        ("lastIndexOf", LIST_TYPE, vec![DYN_TYPE], last_index_of),
        ("find", STRING_TYPE, vec![STRING_TYPE], find),
        ("findAll", STRING_TYPE, vec![STRING_TYPE], find_all),
        ("isGreaterThan", DYN_TYPE, vec![DYN_TYPE], is_greater),
        ("isLessThan", DYN_TYPE, vec![DYN_TYPE], is_less),
        ("compareTo", DYN_TYPE, vec![DYN_TYPE], compare_to),
        ("add", DYN_TYPE, vec![DYN_TYPE], add),
        ("sub", DYN_TYPE, vec![DYN_TYPE], sub),
        ("sign", DYN_TYPE, vec![], sign),
        ("isInteger", DYN_TYPE, vec![], is_integer),
        ("asInteger", DYN_TYPE, vec![], as_integer),
        ("asApproximateFloat", DYN_TYPE, vec![], as_float),
    ];
    let declared = env
        .add_extension(extensions::strings)
        .and_then(|()| env.add_extension(extensions::encoders))
        .and_then(|()| {
            globals.into_iter().try_for_each(|(name, args, function)| {
                env.add_overload(name, &format!("{name}()"), args, function)
            })
        })
        .and_then(|()| {
            members
                .into_iter()
                .try_for_each(|(name, target, args, function)| {
                    let id = format!("{}.{name}()", target.name());
                    env.add_member_overload(name, &id, target, args, function)
                })
        });
    declared.expect("no two functions have one signature");
    env
}

fn take<const N: usize>(args: Args<'_, '_>) -> Result<[Cel; N], ExecutionError> {
    let found = args.len();
    let values: Vec<Cel> = args
        .iter()
        .map(|value| Cel::try_from(value.as_ref()))
        .collect::<Result<_, _>>()?;
    values
        .try_into()
        .map_err(|_| ExecutionError::invalid_argument_count(N, found))
}

fn give<'b, 'v>(value: impl Into<Cel>) -> Answer<'b, 'v> {
    let value: Box<dyn Val> = value.into().try_into()?;
    Ok(CowVal::Owned(value))
}

fn list(value: &Cel) -> Result<&[Cel], ExecutionError> {
    match value {
        Cel::List(items) => Ok(items),
        other => Err(ExecutionError::UnexpectedType {
            got: other.type_of().to_string(),
            want: "list".to_owned(),
        }),
    }
}

fn contains(all: &[Cel], some: &[Cel]) -> bool {
    some.iter().all(|item| all.contains(item))
}

fn sets_contains<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [all, some] = take(args)?;
    give(contains(list(&all)?, list(&some)?))
}

fn sets_equivalent<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [one, other] = take(args)?;
    let (one, other) = (list(&one)?, list(&other)?);
    give(contains(one, other) && contains(other, one))
}

fn sets_intersect<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [one, other] = take(args)?;
    let other = list(&other)?;
    give(list(&one)?.iter().any(|item| other.contains(item)))
}

fn sum<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [items] = take(args)?;
    let mut whole: i64 = 0;
    let mut broken = 0.0;
    let mut is_broken = false;
    for item in list(&items)? {
        match item {
            Cel::Int(number) => {
                whole = whole
                    .checked_add(*number)
                    .ok_or_else(|| ExecutionError::function_error("sum", "the sum is too large"))?;
            }
            Cel::Float(number) => {
                is_broken = true;
                broken += number;
            }
            other => return Err(ExecutionError::unsupported_target_type(other.clone())),
        }
    }
    if is_broken {
        give(broken + whole as f64)
    } else {
        give(whole)
    }
}

fn extreme<'b, 'v>(name: &str, args: Args<'b, 'v>, wanted: Ordering) -> Answer<'b, 'v> {
    let [items] = take(args)?;
    let mut best: Option<&Cel> = None;
    for item in list(&items)? {
        let Some(held) = best else {
            best = Some(item);
            continue;
        };
        match item.partial_cmp(held) {
            None => return Err(ExecutionError::ValuesNotComparable(item.clone(), held.clone())),
            Some(order) if order == wanted => best = Some(item),
            Some(_) => {}
        }
    }
    match best {
        Some(best) => give(best.clone()),
        None => Err(ExecutionError::function_error(name, "the list is empty")),
    }
}

fn min<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    extreme("min", args, Ordering::Less)
}

fn max<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    extreme("max", args, Ordering::Greater)
}

fn is_sorted<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [items] = take(args)?;
    give(list(&items)?.is_sorted())
}

fn place(at: Option<usize>) -> i64 {
    at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)
}

fn index_of<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [items, wanted] = take(args)?;
    give(place(list(&items)?.iter().position(|item| *item == wanted)))
}

fn last_index_of<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [items, wanted] = take(args)?;
    give(place(list(&items)?.iter().rposition(|item| *item == wanted)))
}

fn pattern(name: &str, text: Cel, pattern: Cel) -> Result<(Arc<String>, regex::Regex), ExecutionError> {
    let (Cel::String(text), Cel::String(pattern)) = (text, pattern) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let pattern = regex::Regex::new(&pattern).map_err(|error| {
        ExecutionError::function_error(name, format!("{pattern:?} is no pattern: {error}"))
    })?;
    Ok((text, pattern))
}

fn find<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [text, wanted] = take(args)?;
    let (text, pattern) = pattern("find", text, wanted)?;
    give(pattern.find(&text).map_or("", |found| found.as_str()))
}

fn find_all<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [text, wanted] = take(args)?;
    let (text, pattern) = pattern("findAll", text, wanted)?;
    let found: Vec<Cel> = pattern
        .find_iter(&text)
        .map(|found| found.as_str().into())
        .collect();
    give(found)
}

/// A Kubernetes quantity, in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Quantity(i128);

impl Opaque for Quantity {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.Quantity"
    }
}

const ONE: i128 = 1_000_000_000;

impl Quantity {
    fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = digits
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') {
            return None;
        }
        let (numerator, denominator) = factor(suffix)?;
        let all: i128 = format!("{whole}{part}").parse().ok()?;
        let places = 10i128.checked_pow(u32::try_from(part.len()).ok()?)?;
        let scaled = all.checked_mul(numerator)?;
        let divisor = places.checked_mul(denominator)?;
        // What is finer than a billionth is rounded up, as in Kubernetes.
        let value = scaled / divisor + i128::from(scaled % divisor != 0);
        Some(Self(if negative { -value } else { value }))
    }
}

/// What a suffix means in billionths, as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((ONE << (10 * power), 1));
    match suffix {
        "n" => Some((1, 1)),
        "u" => Some((1_000, 1)),
        "m" => Some((1_000_000, 1)),
        "" => Some((ONE, 1)),
        "k" => Some((ONE * 1_000, 1)),
        "M" => Some((ONE * 1_000_000, 1)),
        "G" => Some((ONE * 1_000_000_000, 1)),
        "T" => Some((ONE * 1_000_000_000_000, 1)),
        "P" => Some((ONE * 1_000_000_000_000_000, 1)),
        "E" => Some((ONE * 1_000_000_000_000_000_000, 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 {
                Some((ONE, power))
            } else {
                Some((ONE.checked_mul(power)?, 1))
            }
        }
    }
}

fn quantity_in(value: &Cel) -> Result<Quantity, ExecutionError> {
    match value {
        Cel::Opaque(opaque) => opaque.downcast_ref::<Quantity>().copied(),
        Cel::Int(number) => i128::from(*number).checked_mul(ONE).map(Quantity),
        _ => None,
    }
    .ok_or_else(|| ExecutionError::UnexpectedType {
        got: value.type_of().to_string(),
        want: "quantity".to_owned(),
    })
}

fn give_quantity<'b, 'v>(quantity: Option<i128>) -> Answer<'b, 'v> {
    let quantity =
        quantity.ok_or_else(|| ExecutionError::function_error("quantity", "the result is too large"))?;
    give(Arc::new(Quantity(quantity)) as Arc<dyn Opaque>)
}

fn quantity<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [text] = take(args)?;
    let Cel::String(text) = text else {
        return Err(ExecutionError::unsupported_target_type(text));
    };
    match Quantity::parse(&text) {
        Some(quantity) => give_quantity(Some(quantity.0)),
        None => Err(ExecutionError::function_error(
            "quantity",
            format!("{text:?} is no quantity such as 500m, 2 or 64Mi"),
        )),
    }
}

fn is_quantity<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let [text] = take(args)?;
    give(matches!(text, Cel::String(text) if Quantity::parse(&text).is_some()))
}

fn two(args: Args<'_, '_>) -> Result<(Quantity, Quantity), ExecutionError> {
    let [one, other] = take(args)?;
    Ok((quantity_in(&one)?, quantity_in(&other)?))
}

fn one(args: Args<'_, '_>) -> Result<Quantity, ExecutionError> {
    let [value] = take(args)?;
    quantity_in(&value)
}

fn is_greater<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (one, other) = two(args)?;
    give(one > other)
}

fn is_less<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (one, other) = two(args)?;
    give(one < other)
}

fn compare_to<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (one, other) = two(args)?;
    give(one.cmp(&other) as i64)
}

fn add<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (one, other) = two(args)?;
    give_quantity(one.0.checked_add(other.0))
}

fn sub<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (one, other) = two(args)?;
    give_quantity(one.0.checked_sub(other.0))
}

fn sign<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    give(one(args)?.0.signum() as i64)
}

fn is_integer<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let value = one(args)?.0;
    give(value % ONE == 0 && i64::try_from(value / ONE).is_ok())
}

fn as_integer<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let value = one(args)?.0;
    match i64::try_from(value / ONE) {
        Ok(number) if value % ONE == 0 => give(number),
        _ => Err(ExecutionError::function_error(
            "asInteger",
            "the quantity is no whole number",
        )),
    }
}

fn as_float<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    give(one(args)?.0 as f64 / ONE as f64)
}
