import numpy as np

from node.mammography.findings import FindingKind
from node.mammography.views import STANDARD_VIEWS, Laterality, ViewPosition
from training.phantoms import make_exam
from training.phantoms.lesions import CALCIFICATION_PLEOMORPHIC, KINDS, MASS_OVAL, MASS_SPICULATED
from training.phantoms.pairs import make_asymmetry_pair, make_mass_pair
from training.phantoms.reports import NEGATIVE


def test_an_exam_follows_from_its_seed():
    assert make_exam(17) == make_exam(17)
    assert make_exam(17).woman != make_exam(18).woman


def test_the_mix_has_normal_benign_and_malignant_exams():
    exams = [make_exam(seed) for seed in range(300)]
    normal = np.mean([not exam.lesions for exam in exams])
    malignant = np.mean([exam.malignant for exam in exams])
    assert 0.28 < normal < 0.42
    assert 0.23 < malignant < 0.37
    assert {exam.density for exam in exams} == set("ABCD")


def test_sizes_stay_in_the_ranges_of_each_finding():
    lesions = [lesion for seed in range(400) for lesion in make_exam(seed).lesions]
    masses = [lesion.size_mm for lesion in lesions if lesion.finding is FindingKind.MASS]
    clusters = [lesion.size_mm for lesion in lesions if lesion.finding is FindingKind.SUSPICIOUS_CALCIFICATION]
    assert min(masses) >= 6.0
    assert max(masses) <= 40.0
    assert 11.0 < np.median(masses) < 17.0
    assert min(clusters) >= 5.0
    assert max(clusters) <= 30.0


def test_forced_kinds_give_just_those_lesions_on_the_side_asked():
    exam = make_exam(5, kinds=[MASS_SPICULATED.on(Laterality.LEFT), CALCIFICATION_PLEOMORPHIC.on(Laterality.RIGHT)])
    assert [(x.subtype, x.laterality) for x in exam.lesions] == [
        ("spiculated", Laterality.LEFT),
        ("pleomorphic grouped", Laterality.RIGHT),
    ]
    assert exam.malignant_breasts == (True, True)


def test_a_breast_is_malignant_only_by_the_table():
    exam = make_exam(5, kinds=[MASS_OVAL.on(Laterality.LEFT), MASS_SPICULATED.on(Laterality.RIGHT)])
    assert exam.malignant_breasts == (True, False)
    assert make_exam(5, kinds=[MASS_OVAL]).malignant_breasts == (False, False)
    assert {kind.malignant for kind in KINDS if kind.finding is FindingKind.MASS} == {True, False}


def test_a_lesion_lies_at_one_distance_from_the_nipple_in_both_views():
    for seed in range(30):
        exam = make_exam(seed, kinds=[MASS_OVAL])
        lesion = exam.lesions[0]
        for view in STANDARD_VIEWS:
            projection = exam.projection(view)
            x, y = projection.locate(lesion.site.nipple_distance_mm, lesion.site.angle_in(view.position))
            distance = np.hypot(x - projection.nipple[0], y - projection.nipple[1])
            assert abs(distance - lesion.site.nipple_distance_mm) < 1e-6


def test_sentences_name_each_finding_or_say_that_there_is_none():
    exam = make_exam(5, kinds=[MASS_SPICULATED.on(Laterality.LEFT), CALCIFICATION_PLEOMORPHIC.on(Laterality.RIGHT)])
    mass, cluster = exam.sentences()
    assert "spiculated" in mass
    assert "left breast" in mass
    assert "pleomorphic calcifications" in cluster
    assert "right breast" in cluster
    assert make_exam(5, kinds=()).sentences() == (NEGATIVE,)


def test_view_sentences_keep_to_words_that_the_view_shows():
    words = {ViewPosition.CC: ("upper", "lower"), ViewPosition.MLO: ("outer", "inner")}
    for seed in range(40):
        exam = make_exam(seed)
        for view in STANDARD_VIEWS:
            text = " ".join(exam.view_sentences(view))
            assert not any(word in text for word in (*words[view.position], "left", "right"))


def test_a_mass_pair_has_a_mass_in_two_views_or_shadows_in_one_view_each():
    with_mass, with_shadows = make_mass_pair(3)
    shadows = [d for d in with_shadows.distractors if d.like is not None]
    assert [lesion.finding for lesion in with_mass.lesions] == [FindingKind.MASS]
    assert with_shadows.lesions == ()
    assert {d.laterality for d in shadows} == {Laterality.RIGHT, Laterality.LEFT}
    assert sorted(d.positions for d in shadows) == [(ViewPosition.CC,), (ViewPosition.MLO,)]


def test_an_asymmetry_pair_differs_only_in_symmetry():
    both = 0
    for seed in range(40):
        asymmetric, symmetric = make_asymmetry_pair(seed)
        assert [lesion.finding for lesion in asymmetric.lesions] == [FindingKind.ASYMMETRY]
        densities = [d for d in symmetric.distractors if d.kind.value == "symmetric density"]
        assert len(densities) in (0, 2)
        both += len(densities) == 2
    assert 10 <= both <= 30
