//! Tensors as JSON: there and back, and what is refused.

use lowbit::{Affine, QTensor, Scheme};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::{GRANULARITIES, SCALE_KINDS, builders, schemes, tensor};

fn refused(json: &Value) -> Option<String> {
    let error = serde_json::from_value::<QTensor>(json.clone()).err();
    error.map(|error| error.to_string())
}

#[test]
fn every_scheme_comes_back_as_it_was() {
    for builder in builders() {
        for (index, granularity) in GRANULARITIES.into_iter().enumerate() {
            let kind = SCALE_KINDS[index % SCALE_KINDS.len()];
            let scheme = builder.scale_kind(kind).granularity(granularity);
            let before = tensor(scheme.build().unwrap(), &[3, 2, 5]);
            let text = serde_json::to_string(&before).unwrap();
            assert_eq!(serde_json::from_str::<QTensor>(&text).unwrap(), before);
            let affine = before.affine();
            let text = serde_json::to_string(&affine).unwrap();
            assert_eq!(serde_json::from_str::<Affine>(&text).unwrap(), affine);
        }
    }
}

#[test]
fn each_field_that_contradicts_the_others_is_refused_and_named() {
    let scheme = Scheme::int(3).narrow_range().asymmetric().per_axis(0);
    let good = serde_json::to_value(tensor(scheme.build().unwrap(), &[2, 4])).unwrap();
    assert_eq!(refused(&good), None);
    let scale = "/scale/F32";
    let zero = "/zero_point/Integer";
    let cases = [
        ("/shape", json!([2, 5]), "packed codes"),
        ("/shape", json!([4, 2]), "parameters"),
        ("/shape", json!([]), "axis"),
        ("/shape", json!([2, u64::MAX]), "fits in memory"),
        (
            "/shape",
            json!([1_u64 << 32, 1_u64 << 32]),
            "fits in memory",
        ),
        ("/parameter_shape", json!([3]), "scales"),
        ("/parameter_shape", json!([2, 1]), "parameters"),
        (
            "/parameter_shape",
            json!([u64::MAX, u64::MAX]),
            "fits in memory",
        ),
        (scale, json!([1.0]), "zero points"),
        (scale, json!([1.0, 0.0]), "scale 1"),
        (scale, json!([-1.0, 1.0]), "scale 0"),
        (scale, json!([1.0, 1e-45]), "scale 1"),
        (scale, json!([1.0, null]), "invalid type"),
        ("/scale", json!({"F16": [15360, 15360]}), "stored scales"),
        ("/zero_point", json!("Middle"), "stored zero points"),
        (
            "/zero_point",
            json!({"Float": [0.0, 0.0]}),
            "stored zero points",
        ),
        ("/zero_point/Integer/bytes", json!([7]), "zero point 0"), // a code left out
        ("/zero_point/Integer/len", json!(1), "zero bits"),
        ("/zero_point/Integer/len", json!(u64::MAX), "packed codes"),
        (
            zero,
            json!({"bits": 4, "len": 2, "bytes": [0]}),
            "stored zero points",
        ),
        (
            zero,
            json!({"bits": 3, "len": 2, "bytes": [255]}),
            "zero bits",
        ),
        ("/codes/bits", json!(4), "packed codes"),
        ("/codes/bits", json!(0), "bits"),
        ("/codes/len", json!(9), "packed codes"),
        ("/codes/bytes", json!([255, 255, 255, 0]), "packed codes"),
        ("/codes/bytes", json!([255, 255]), "packed codes"),
        ("/codes/bytes", json!([255, 255, 255]), "code at element 0"),
        ("/scheme/granularity", json!({"PerGroup": 0}), "group size"),
        ("/scheme/granularity", json!({"PerAxis": 7}), "axis"),
        ("/scheme/format/Int/bits", json!(9), "bits"),
        ("/scheme/format/Int/bits", json!(4), "stored zero points"),
        ("/scheme/mapping", json!("Symmetric"), "stored zero points"),
        ("/scheme/mapping", json!("Sideways"), "unknown variant"),
        ("/scheme/scale_kind", json!("F16"), "stored scales"),
    ];
    for (path, value, complaint) in cases {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value.clone();
        let error = refused(&bad).unwrap_or_else(|| unreachable!("{path} = {value} was believed"));
        assert!(error.contains(complaint), "{path} = {value}: {error}");
    }
}

#[test]
fn every_field_must_be_there() {
    let good = serde_json::to_value(tensor(Scheme::int(4).build().unwrap(), &[2])).unwrap();
    for field in good.as_object().unwrap().keys() {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        assert!(refused(&bad).unwrap().contains(field.as_str()));
    }
}

#[test]
fn a_few_bytes_that_claim_an_absurd_tensor_are_refused_without_making_it() {
    let small = tensor(Scheme::int(4).build().unwrap(), &[2]);
    let good = serde_json::to_value(small).unwrap();
    let absurd = [
        json!([1_u64 << 40]),
        json!([1_u64 << 62]),
        json!([1_u64 << 20, 1_u64 << 20]),
        json!([u64::MAX]),
    ];
    for shape in absurd {
        let mut bad = good.clone();
        bad["shape"] = shape;
        assert!(refused(&bad).is_some());
        // The same, with a stream that says it is as long.
        bad["codes"]["len"] = json!(1_u64 << 40);
        assert!(refused(&bad).is_some());
    }
    // Nothing of an absurd width holds no memory, but its channels would.
    let mut bad = good;
    bad["shape"] = json!([1_u64 << 40, 0]);
    bad["codes"] = json!({"bits": 4, "len": 0, "bytes": []});
    assert_eq!(refused(&bad), None);
    bad["scheme"]["granularity"] = json!({"PerAxis": 0});
    bad["parameter_shape"] = json!([1_u64 << 40]);
    assert!(refused(&bad).is_some());
}

proptest! {
    #[test]
    fn any_number_in_any_place_is_refused_or_gives_a_tensor_that_works(
        scheme in schemes(), place in any::<prop::sample::Index>(),
        number in prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-300..300_i64).prop_map(Value::from),
        ],
    ) {
        let mut json = serde_json::to_value(tensor(scheme, &[3, 2, 5])).unwrap();
        let places = numbers_in(&json, String::new());
        let path = place.get(&places);
        *json.pointer_mut(path).unwrap() = number;
        if let Ok(tensor) = serde_json::from_value::<QTensor>(json) {
            let x = tensor.dequantize::<f32>();
            prop_assert_eq!(x.shape(), tensor.shape());
            let again = QTensor::from_codes(&tensor.codes::<i32>().unwrap(), &tensor.affine());
            prop_assert_eq!(again.unwrap(), tensor);
        }
    }
}

/// Where numbers are in a document, as JSON pointers.
fn numbers_in(json: &Value, at: String) -> Vec<String> {
    match json {
        Value::Number(_) => vec![at],
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items
                .flat_map(|(index, item)| numbers_in(item, format!("{at}/{index}")))
                .collect()
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            fields
                .flat_map(|(name, item)| numbers_in(item, format!("{at}/{name}")))
                .collect()
        }
        _ => vec![],
    }
}
