"""From a record back to its assessment; what is damaged is refused in tests/restore_bridge/test_cli.py."""

import json

from zoomiqa import assess
from zoomiqa.assessors import AssessorSpec, create_assessor
from zoomiqa.sidecars import assessment_properties
from zoomiqa.types import Assessment


def test_all_that_is_said_of_a_picture_comes_back(photos):
    fresh = assess(photos / "coffee.png", create_assessor(AssessorSpec(attributes=True)))
    record = json.loads(json.dumps(fresh.to_dict()))
    back = Assessment.from_dict(record)
    assert list(assessment_properties(back)) == list(assessment_properties(fresh))
    assert (back.rating, back.spread, back.assessor) == (fresh.rating, fresh.spread, fresh.assessor)
    assert back.attributes == fresh.attributes != {}
    assert [finding.to_dict() for finding in back.findings] == [finding.to_dict() for finding in fresh.findings]
    assert Assessment.from_dict({**record, "rating": 1.5}).rating == 1.5, "a mean of samples is no look's rating"


def test_a_failure_comes_back_as_one():
    error = {"code": "ZIQ-401", "type": "BackendFailed", "message": "m"}
    record = Assessment((), None, error=error).to_dict()
    assert Assessment.from_dict(record).error == error
