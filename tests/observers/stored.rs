//! Observers as JSON: there and back, and what is refused.

use lowbit::{
    Granularity, Observer, ObserverExt, Range,
    observe::{
        Fixed, Histogram, HistogramObserver, Importance, MeanDeviation, MinMax, MovingAverageMinMax,
    },
};
use ndarray::{Array2, ArrayD, IxDyn, array};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::support::{GRANULARITIES, SHAPE};

/// Sums of few bits, so that decimal figures give them back exactly.
fn batch() -> ArrayD<f32> {
    let mut next = 0_i16;
    ArrayD::from_shape_simple_fn(IxDyn(&SHAPE), || {
        next = (next * 7 + 3) % 64;
        f32::from(next - 20) / 4.0
    })
}

fn goes_there_and_back<O>(observer: O)
where
    O: Observer + Clone + PartialEq + Serialize + DeserializeOwned,
{
    let back = |observer: &O| {
        let text = serde_json::to_string(observer).unwrap();
        serde_json::from_str::<O>(&text).unwrap()
    };
    assert_eq!(back(&observer), observer);
    let mut empty = observer.clone();
    if observer.granularity() == Granularity::PerAxis(2) {
        // Groups that have seen no element.
        empty
            .observe(&ArrayD::<f32>::zeros(IxDyn(&[0, 4, 5])))
            .unwrap();
        assert_eq!(back(&empty), empty);
    }
    let mut seen = observer;
    seen.observe(&batch()).unwrap();
    let mut stored = back(&seen);
    assert_eq!(stored, seen);
    // It goes on as it would have.
    stored.observe(&batch()).unwrap();
    seen.observe(&batch()).unwrap();
    assert_eq!(stored, seen);
    seen.merge(&stored).unwrap();
}

#[test]
fn every_observer_comes_back_as_it_was_and_goes_on() {
    for granularity in GRANULARITIES {
        goes_there_and_back(MinMax::new(granularity));
        goes_there_and_back(HistogramObserver::new(granularity));
        goes_there_and_back(HistogramObserver::new(granularity).with_bins(5).unwrap());
        goes_there_and_back(Fixed::new(Range::new(-1.0, 0.5).unwrap(), granularity));
        goes_there_and_back(Importance::new(granularity));
        if matches!(
            granularity,
            Granularity::PerTensor | Granularity::PerAxis(2)
        ) {
            // 60 and 12 elements: their means have endless figures in binary.
            let mut observer = MeanDeviation::new(granularity);
            observer
                .observe(&batch().slice_axis(ndarray::Axis(0), (0..1).into()))
                .unwrap();
            let text = serde_json::to_string(&observer).unwrap();
            let back: MeanDeviation = serde_json::from_str(&text).unwrap();
            let (a, b) = (observer.statistics(0).unwrap(), back.statistics(0).unwrap());
            assert!(super::support::close(&a, &b));
        }
        let average = MovingAverageMinMax::new(granularity);
        goes_there_and_back(average.with_averaging_constant(0.5).unwrap());
    }
}

fn refused<O: DeserializeOwned + Observer>(json: &Value) -> Option<String> {
    let error = serde_json::from_value::<O>(json.clone()).err();
    error.map(|error| error.to_string())
}

fn check_refusals<O>(observer: O, cases: &[(&str, Value)])
where
    O: Observer + Serialize + DeserializeOwned,
{
    let mut observer = observer;
    observer
        .observe(&array![[1.0_f32, -2.0], [3.0, 0.5]])
        .unwrap();
    let good = serde_json::to_value(&observer).unwrap();
    assert_eq!(refused::<O>(&good), None);
    let common = [
        ("/tally/granularity", json!({"PerGroup": 0})),
        ("/tally/shape", json!(null)),
        ("/tally/shape", json!([3])),
        ("/tally/shape", json!([1_u64 << 40])),
        ("/tally/shape", json!([u64::MAX, u64::MAX])),
        ("/tally/states", json!([])),
    ];
    for (path, value) in common.iter().chain(cases) {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value.clone();
        assert!(
            refused::<O>(&bad).is_some(),
            "{path} = {value} was believed: {good}"
        );
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let columns = Granularity::PerAxis(1);
    let huge = json!(u64::MAX);
    check_refusals(
        MinMax::new(columns),
        &[
            ("/tally/states/0/min", json!(4.0)),
            ("/tally/states/0/max", json!(null)),
            ("/tally/states/0/count", huge.clone()),
            ("/tally/states/0/count", json!(-1)),
        ],
    );
    check_refusals(
        MeanDeviation::new(columns),
        &[
            ("/tally/states/1/squares", json!(-1.0)),
            ("/tally/states/1/extremes/min", json!(4.0)),
            ("/tally/states/1/extremes/count", huge.clone()),
        ],
    );
    check_refusals(
        Importance::new(columns),
        &[
            ("/tally/states/1/sum", json!(-1.0)),
            ("/tally/states/1/extremes/count", huge.clone()),
        ],
    );
    check_refusals(
        MovingAverageMinMax::new(columns),
        &[
            ("/averaging_constant", json!(0.0)),
            ("/averaging_constant", json!(null)),
            ("/tally/states/0/min", json!(4.0)),
            ("/tally/states/0/count", json!(0)),
            ("/tally/states/0/count", huge.clone()),
        ],
    );
    check_refusals(
        Fixed::new(Range::new(0.0, 1.0).unwrap(), columns),
        &[
            ("/min", json!(2.0)),
            ("/max", json!(null)),
            ("/tally/states/0/count", huge.clone()),
        ],
    );
    check_refusals(
        HistogramObserver::new(columns),
        &[
            ("/bins", json!(0)),
            ("/bins", json!(1)),
            ("/bins", json!(2)),
            ("/bins", huge.clone()),
            ("/tally/states/0/exponent", json!(0)),
            ("/tally/states/0/exponent", json!(i32::MAX)),
            ("/tally/states/0/exponent", json!(i32::MIN)),
            ("/tally/states/0/first", json!(0)),
            ("/tally/states/0/first", json!(i64::MAX)),
            ("/tally/states/0/min", json!(0.0)),
            ("/tally/states/0/max", json!(1e30)),
            ("/tally/states/0/counts", json!([])),
            ("/tally/states/0/counts", json!([1, 1])),
            ("/tally/states/0/counts/0", json!(0)),
            ("/tally/states/0/counts/0", huge),
        ],
    );
}

#[test]
fn a_histogram_alone_is_checked_as_those_of_observers_are() {
    let mut observer = HistogramObserver::new(Granularity::PerTensor);
    observer.observe(&array![1.0_f32, -2.0, 3.0]).unwrap();
    let statistics = observer.statistics(0).unwrap();
    let good = serde_json::to_value(statistics.histogram().unwrap()).unwrap();
    let back: Histogram = serde_json::from_value(good.clone()).unwrap();
    assert_eq!(&back, statistics.histogram().unwrap());
    for (field, value) in [
        ("first", json!(i64::MIN)),
        ("first", json!(i64::MAX)),
        ("exponent", json!(i32::MAX)),
        ("exponent", json!(i32::MIN)),
        ("counts", json!([u64::MAX, u64::MAX])),
        ("min", json!(3.5)),
    ] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        let result = serde_json::from_value::<Histogram>(bad);
        assert!(result.is_err(), "{field} = {value} was believed");
    }
}

proptest! {
    #[test]
    fn any_number_in_any_place_is_refused_or_gives_an_observer_that_works(
        place in any::<prop::sample::Index>(),
        number in prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-5..5_i64).prop_map(Value::from),
        ],
    ) {
        let columns = Granularity::PerAxis(1);
        damage(HistogramObserver::new(columns).with_bins(9).unwrap(), place, &number);
        damage(MinMax::new(columns), place, &number);
        damage(MeanDeviation::new(columns), place, &number);
        damage(Importance::new(columns), place, &number);
        damage(MovingAverageMinMax::new(columns), place, &number);
        damage(Fixed::new(Range::new(0.0, 1.0).unwrap(), columns), place, &number);
    }
}

/// Reads an observer with one number changed, and uses it where it is believed.
fn damage<O>(observer: O, place: prop::sample::Index, number: &Value)
where
    O: Observer + Clone + Serialize + DeserializeOwned,
{
    let mut observer = observer;
    let x = Array2::from_shape_fn((4, 2), |(i, j)| i as f32 - 1.5 * j as f32);
    observer.observe(&x).unwrap();
    let mut json = serde_json::to_value(&observer).unwrap();
    let mut places = vec![];
    numbers_in(&json, String::new(), &mut places);
    let path: &String = place.get(&places);
    *json.pointer_mut(path).unwrap() = number.clone();
    let Ok(mut read) = serde_json::from_value::<O>(json) else {
        return;
    };
    let _ = read.observe(&x);
    let twin = read.clone();
    let _ = (read.merge(&twin), read.merge(&observer));
    let scheme = lowbit::Scheme::int(4)
        .asymmetric()
        .per_axis(1)
        .build()
        .unwrap();
    for calibrator in calibrators() {
        let _ = lowbit::calibrate::ranges(&*calibrator, &read, &scheme);
    }
}

fn calibrators() -> Vec<Box<dyn lowbit::Calibrator>> {
    use lowbit::calibrate::{FullRange, MeanSquaredError, Percentile, StandardDeviations};
    vec![
        Box::new(FullRange),
        Box::new(Percentile::default()),
        Box::new(MeanSquaredError::default().with_grid(10, 0.5).unwrap()),
        Box::new(StandardDeviations::default()),
    ]
}

/// Where numbers are in a document, as JSON pointers.
fn numbers_in(json: &Value, at: String, places: &mut Vec<String>) {
    match json {
        Value::Number(_) => places.push(at),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                numbers_in(item, format!("{at}/{index}"), places);
            }
        }
        Value::Object(fields) => {
            for (name, item) in fields {
                numbers_in(item, format!("{at}/{name}"), places);
            }
        }
        _ => {}
    }
}
