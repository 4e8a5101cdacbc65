use super::*;
use serde_json::json;

fn object() -> Value {
    json!({
        "apiVersion": "example.dev/v1", "kind": "Camera",
        "metadata": {"name": "front", "generation": 2, "labels": {"site": "berlin"}},
        "spec": {"replicas": 3, "memory": "64Mi", "ratio": 0.5},
        "status": {"observedGeneration": 2, "conditions": [
            {"type": "Ready", "status": "True", "reason": "Up"},
            {"type": "Synced", "status": "False", "reason": "Behind"},
        ]},
    })
}

fn with_fields(text: &str) -> Result<bool, CelError> {
    let object = object();
    let fields = object.as_object().unwrap();
    Expression::compile(text)?.is_true(fields.iter().map(|(name, value)| (name.as_str(), value)))
}

#[test]
fn expressions_of_the_cheat_sheet_and_of_policies() {
    for (text, wanted) in [
        (
            "status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')",
            true,
        ),
        (
            "status.conditions.filter(e, e.type == 'Synced').all(e, e.status == 'True')",
            false,
        ),
        (
            "status.conditions.exists(e, e.type == 'Synced' && e.status == 'False')",
            true,
        ),
        ("metadata.generation == status.observedGeneration", true),
        ("has(status.phase) && status.phase == 'Failed'", false),
        ("!has(status.phase) || status.phase in ['Bound', 'Ready']", true),
        ("status.?phase.orValue('none') == 'none'", true),
        (
            "'site' in metadata.labels && metadata.labels['site'].matches('^ber.*$')",
            true,
        ),
        (
            "size(status.conditions) == 2 && status.conditions.map(c, c.type).join(',') == 'Ready,Synced'",
            true,
        ),
        (
            "spec.replicas > 2 && spec.ratio < 0.6 && spec.replicas == 3.0",
            true,
        ),
        (
            "metadata.name.startsWith('fr') && metadata.name.endsWith('t') && metadata.name.contains('on')",
            true,
        ),
        (
            "metadata.name.upperAscii() == 'FRONT' && metadata.name.charAt(0) == 'f'",
            true,
        ),
        (
            "metadata.name.split('o') == ['fr', 'nt'] && 'a-b'.replace('-', '+') == 'a+b'",
            true,
        ),
        (
            "quantity(spec.memory).isGreaterThan(quantity('1M')) && isQuantity('1e3') && !isQuantity('1Q')",
            true,
        ),
        ("quantity('1.5').add(quantity('500m')).asInteger() == 2", true),
        (
            "quantity('100m').asApproximateFloat() < 0.11 && quantity('-1').sign() == -1",
            true,
        ),
        (
            "sets.contains([1, 2, 3], [2, 3]) && !sets.intersects([1], [2]) && sets.equivalent([1, 1], [1])",
            true,
        ),
        (
            "[1, 2, 3].sum() == 6 && [3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2].isSorted()",
            true,
        ),
        (
            "[7, 8, 7].indexOf(7) == 0 && [7, 8, 7].lastIndexOf(7) == 2 && [7].indexOf(9) == -1",
            true,
        ),
        (
            "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
            true,
        ),
        ("base64.encode(b'hello') == 'aGVsbG8='", true),
        ("type(spec.replicas) == int", true),
    ] {
        assert_eq!(with_fields(text), Ok(wanted), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, wanted) in [
        ("status.conditions.filter(e, e.type == ", "column"),
        ("status.phase == 'x'", "there is no \"phase\" at column 7"),
        (
            "true &&\n  stat.phase == 'x'",
            "there is no \"stat\" at line 2, column 3",
        ),
        ("spec.replicas", "gives a value of type int, not a boolean"),
        ("metadata.name > 1", "cannot be applied to string and int"),
        ("quantity('1Q').sign() == 1", "no quantity"),
        ("[1].frobnicate()", "frobnicate"),
    ] {
        let error = with_fields(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn work_memory_depth_and_length_are_bounded() {
    let digits = "[0,1,2,3,4,5,6,7,8,9]";
    let loops = |depth: usize| {
        (0..depth).fold("true".to_owned(), |inner, at| {
            format!("{digits}.all(x{at}, {inner})")
        })
    };
    assert_eq!(with_fields(&loops(3)), Ok(true));
    let deepest = format!("[1]{}.size() == 1", ".map(a, [a].map(b, b)[0])".repeat(20));
    assert_eq!(
        with_fields(&deepest),
        Ok(true),
        "all that is let in fits on a stack"
    );
    let doubling = format!(
        "['{}']{}.size() == 1",
        "x".repeat(64),
        ".map(a, a + a)".repeat(20)
    );
    let nested = format!("[[1]]{}.size() == 1", ".map(a, [a, a])".repeat(20));
    let product = "[metadata.name].map(a, a.replace('', a)).map(a, a.replace('', a)).map(a, a.replace('', a)).map(a, a.replace('', a)).map(a, a.replace('', a)).map(a, a.replace('', a)).size() == 1";
    for text in [
        loops(9),
        doubling,
        nested,
        product.to_owned(),
        format!("status{}", ".a".repeat(4_000)),
        format!("{}1{} == 1", "(".repeat(4_000), ")".repeat(4_000)),
        format!("'{}' == ''", "x".repeat(MAX_TEXT)),
        format!("1{} == 1", " + 1".repeat(2_000)),
    ] {
        let error = with_fields(&text).expect_err(&text[..40]);
        let bounded = matches!(error, CelError::TooLarge { .. } | CelError::Syntax { .. });
        assert!(bounded, "{}: {error}", &text[..40]);
    }
}

#[test]
fn values_come_back_as_json() {
    let object = object();
    let expression =
        Expression::compile("{'n': object.spec.replicas, 'l': object.status.conditions.map(c, c.type)}")
            .unwrap();
    assert_eq!(
        expression.to_json([("object", &object)]),
        Ok(json!({"n": 3, "l": ["Ready", "Synced"]}))
    );
    let message = Expression::compile("'replicas: ' + string(object.spec.replicas)").unwrap();
    assert_eq!(
        message.to_text([("object", &object)]),
        Ok("replicas: 3".to_owned())
    );
    assert_eq!(message.text(), "'replicas: ' + string(object.spec.replicas)");
}
